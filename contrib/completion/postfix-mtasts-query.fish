# fish completion for postfix-mtasts-query. It asks neither the daemon nor DNS, so nobody waits for it.
set -l subcommands cache except doctor fleet health shadow warm
set -l c complete -c postfix-mtasts-query
$c -f
$c -l config -r -F -d 'configuration of the daemon'
$c -l json -d 'print JSON'
$c -l version
$c -l help
$c -n __fish_use_subcommand -a "$subcommands"
$c -n "not __fish_seen_subcommand_from $subcommands" -l probe
$c -n "not __fish_seen_subcommand_from $subcommands" -l as-postfix
$c -n "not __fish_seen_subcommand_from $subcommands" -l patient
$c -n "not __fish_seen_subcommand_from $subcommands" -l all
$c -n "not __fish_seen_subcommand_from $subcommands" -l policy -r -F
$c -n "not __fish_seen_subcommand_from $subcommands" -l record -x
$c -n "not __fish_seen_subcommand_from $subcommands" -l server -x
$c -n '__fish_seen_subcommand_from cache' -a 'list show forget refresh'
$c -n '__fish_seen_subcommand_from cache' -l failing
$c -n '__fish_seen_subcommand_from cache' -l ending
$c -n '__fish_seen_subcommand_from cache' -l fleet
$c -n '__fish_seen_subcommand_from cache' -l mode -x -a 'enforce testing none'
$c -n '__fish_seen_subcommand_from cache' -l sort -x -a 'domain fetched expires failures'
$c -n '__fish_seen_subcommand_from except' -a 'add list remove'
$c -n '__fish_seen_subcommand_from except' -l until -x
$c -n '__fish_seen_subcommand_from except' -l reason -x
$c -n '__fish_seen_subcommand_from except' -l level -x -a 'none may encrypt'
$c -n '__fish_seen_subcommand_from except' -l dane
$c -n '__fish_seen_subcommand_from shadow' -l all
$c -n '__fish_seen_subcommand_from warm' -F
$c -n '__fish_seen_subcommand_from warm' -l concurrency -x
