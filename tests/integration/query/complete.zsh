# What zsh offers at the end of a line, each word in brackets: a real zsh on a terminal of its own, whose compadd tells.
# zsh -f complete.zsh FOLDER_OF_COMPLETIONS LINE
zmodload zsh/zpty
zpty shell zsh -f -i
{
    zpty -w shell "PS1= PS2=; fpath=(${(q)1} \$fpath); autoload -Uz compinit; compinit -u -D"
    zpty -w shell 'compadd() {
        if [[ ${@[1,(i)(-|--)]} == *-(O|A|D)\ * ]]; then builtin compadd "$@"; return; fi
        typeset -a offered; builtin compadd -A offered "$@"; [[ -z $offered ]] || print -lr -- "<"$^offered">"; return 0; }
        finish() { echo "<the end>" }; zle -N finish; bindkey "^J" finish; bindkey "^M" finish; bindkey "^I" complete-word; echo READ""Y'
    zpty -r shell seen '*READY*'
    zpty -n -w shell "$2"$'\t\n'
    zpty -r shell seen '*<the end>*'
    print -r -- ${seen%<the end>*}
} always { zpty -d shell }
