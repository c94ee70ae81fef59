# bash completion for postfix-mtasts-query. It asks neither the daemon nor DNS, so nobody waits for it.
_postfix_mtasts_query() {
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} words='--config --json --version --help'
    local word subcommand=
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        case $word in cache | except | doctor | fleet | health | shadow | warm) subcommand=$word; break ;; esac
    done
    case $previous in
    --config | --policy) mapfile -t COMPREPLY < <(compgen -f -- "$current"); return ;;
    --mode) mapfile -t COMPREPLY < <(compgen -W 'enforce testing none' -- "$current"); return ;;
    --sort) mapfile -t COMPREPLY < <(compgen -W 'domain fetched expires failures' -- "$current"); return ;;
    --level) mapfile -t COMPREPLY < <(compgen -W 'none may encrypt' -- "$current"); return ;;
    --concurrency | --record | --server | --until | --reason) return ;;
    esac
    case $subcommand in
    cache)
        words="$words list show forget refresh --failing --ending --fleet --mode --sort"
        ;;
    except) words="$words add list remove --until --reason --level --dane" ;;
    doctor | fleet | health) ;;
    shadow) words="$words --all" ;;
    warm) words="$words --concurrency"; mapfile -t COMPREPLY < <(compgen -f -- "$current") ;;
    *)
        words="$words --probe --as-postfix --patient --all --policy --record --server"
        [ "$COMP_CWORD" -gt 1 ] || words="$words cache except doctor fleet health shadow warm"
        ;;
    esac
    mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -W "$words" -- "$current")
}
complete -F _postfix_mtasts_query postfix-mtasts-query
