# bash completion for postfix-mtasts-reports. It reads no database and asks no DNS, so nobody waits for it.
_postfix_mtasts_reports() {
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} words='--config --json --help'
    case $previous in
    --config) mapfile -t COMPREPLY < <(compgen -f -- "$current"); return ;;
    --days | --domain | --to) return ;;
    esac
    case ${COMP_WORDS[1]} in
    read | import) mapfile -t COMPREPLY < <(compgen -f -- "$current") ;;
    html) words="--config --help"; mapfile -t COMPREPLY < <(compgen -d -- "$current") ;;
    receive) words='--config --help' ;;
    sources | results) words="$words --days --domain --all" ;;
    quarantine) words="$words list show accept drop" ;;
    alert | summary) words="$words --to" ;;
    doctor) words="$words --no-mail" ;;
    show | hide | unhide | replay) ;;
    *) words='--version --help receive read import sources results show hide unhide quarantine html replay alert summary doctor' ;;
    esac
    mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -W "$words" -- "$current")
}
complete -F _postfix_mtasts_reports postfix-mtasts-reports
