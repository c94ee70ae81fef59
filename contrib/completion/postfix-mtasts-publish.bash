# bash completion for postfix-mtasts-publish. It reads no database and asks no DNS, so nobody waits for it.
_postfix_mtasts_publish() {
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} words='--config --json --help'
    case $previous in
    --config) mapfile -t COMPREPLY < <(compgen -f -- "$current"); return ;;
    --mx | --max-age | --force | --set) return ;;
    esac
    case ${COMP_WORDS[1]} in
    add) words="$words --mx --max-age" ;;
    mode) words="$words --force testing enforce none" ;;
    mx) words="$words --refresh --set" ;;
    list | show | records | zone | check | max-age | ready | remove | serve) ;;
    *) words='--version --help add list show records zone check mode mx max-age ready remove serve' ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}
complete -F _postfix_mtasts_publish postfix-mtasts-publish
