# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_firstboot_global_optspecs
    string join \n root= tcti= v/verbose h/help V/version
end

function __fish_firstboot_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_firstboot_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_firstboot_using_subcommand
    set -l cmd (__fish_firstboot_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c firstboot -n "__fish_firstboot_needs_command" -l root -d 'The root of the device\'s file tree: a prefix for every path' -r -F
complete -c firstboot -n "__fish_firstboot_needs_command" -l tcti -d 'The TPM\'s TCTI; without --root, the default is device:/dev/tpmrm0' -r
complete -c firstboot -n "__fish_firstboot_needs_command" -s v -l verbose -d 'Log more'
complete -c firstboot -n "__fish_firstboot_needs_command" -s h -l help -d 'Print help'
complete -c firstboot -n "__fish_firstboot_needs_command" -s V -l version -d 'Print version'
complete -c firstboot -n "__fish_firstboot_needs_command" -f -a "provision" -d 'Create the token, the key and the certificate request, where missing. Needs no network'
complete -c firstboot -n "__fish_firstboot_needs_command" -f -a "enroll" -d 'Provision, then obtain the certificate and configure Greengrass'
complete -c firstboot -n "__fish_firstboot_needs_command" -f -a "renew" -d 'Accept a new certificate while Greengrass runs, or ask for one that is due'
complete -c firstboot -n "__fish_firstboot_needs_command" -f -a "status" -d 'Show the state and the next step. Changes nothing'
complete -c firstboot -n "__fish_firstboot_needs_command" -f -a "tpm" -d 'Describe the TPM: manufacturer, firmware, limits, lockout, persistent objects'
complete -c firstboot -n "__fish_firstboot_needs_command" -f -a "reset" -d 'Discard the identity and remove the configuration written for it'
complete -c firstboot -n "__fish_firstboot_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c firstboot -n "__fish_firstboot_using_subcommand provision" -l root -d 'The root of the device\'s file tree: a prefix for every path' -r -F
complete -c firstboot -n "__fish_firstboot_using_subcommand provision" -l tcti -d 'The TPM\'s TCTI; without --root, the default is device:/dev/tpmrm0' -r
complete -c firstboot -n "__fish_firstboot_using_subcommand provision" -s v -l verbose -d 'Log more'
complete -c firstboot -n "__fish_firstboot_using_subcommand provision" -s h -l help -d 'Print help'
complete -c firstboot -n "__fish_firstboot_using_subcommand provision" -s V -l version -d 'Print version'
complete -c firstboot -n "__fish_firstboot_using_subcommand enroll" -l root -d 'The root of the device\'s file tree: a prefix for every path' -r -F
complete -c firstboot -n "__fish_firstboot_using_subcommand enroll" -l tcti -d 'The TPM\'s TCTI; without --root, the default is device:/dev/tpmrm0' -r
complete -c firstboot -n "__fish_firstboot_using_subcommand enroll" -s v -l verbose -d 'Log more'
complete -c firstboot -n "__fish_firstboot_using_subcommand enroll" -s h -l help -d 'Print help'
complete -c firstboot -n "__fish_firstboot_using_subcommand enroll" -s V -l version -d 'Print version'
complete -c firstboot -n "__fish_firstboot_using_subcommand renew" -l root -d 'The root of the device\'s file tree: a prefix for every path' -r -F
complete -c firstboot -n "__fish_firstboot_using_subcommand renew" -l tcti -d 'The TPM\'s TCTI; without --root, the default is device:/dev/tpmrm0' -r
complete -c firstboot -n "__fish_firstboot_using_subcommand renew" -l due -d 'Change nothing. Exit with 0 if Greengrass has to stop for an accepted certificate, with 75 if not'
complete -c firstboot -n "__fish_firstboot_using_subcommand renew" -s v -l verbose -d 'Log more'
complete -c firstboot -n "__fish_firstboot_using_subcommand renew" -s h -l help -d 'Print help'
complete -c firstboot -n "__fish_firstboot_using_subcommand renew" -s V -l version -d 'Print version'
complete -c firstboot -n "__fish_firstboot_using_subcommand status" -l root -d 'The root of the device\'s file tree: a prefix for every path' -r -F
complete -c firstboot -n "__fish_firstboot_using_subcommand status" -l tcti -d 'The TPM\'s TCTI; without --root, the default is device:/dev/tpmrm0' -r
complete -c firstboot -n "__fish_firstboot_using_subcommand status" -l json -d 'Print JSON with stable names'
complete -c firstboot -n "__fish_firstboot_using_subcommand status" -s v -l verbose -d 'Log more'
complete -c firstboot -n "__fish_firstboot_using_subcommand status" -s h -l help -d 'Print help'
complete -c firstboot -n "__fish_firstboot_using_subcommand status" -s V -l version -d 'Print version'
complete -c firstboot -n "__fish_firstboot_using_subcommand tpm" -l root -d 'The root of the device\'s file tree: a prefix for every path' -r -F
complete -c firstboot -n "__fish_firstboot_using_subcommand tpm" -l tcti -d 'The TPM\'s TCTI; without --root, the default is device:/dev/tpmrm0' -r
complete -c firstboot -n "__fish_firstboot_using_subcommand tpm" -l json -d 'Print JSON with stable names'
complete -c firstboot -n "__fish_firstboot_using_subcommand tpm" -s v -l verbose -d 'Log more'
complete -c firstboot -n "__fish_firstboot_using_subcommand tpm" -s h -l help -d 'Print help'
complete -c firstboot -n "__fish_firstboot_using_subcommand tpm" -s V -l version -d 'Print version'
complete -c firstboot -n "__fish_firstboot_using_subcommand reset" -l root -d 'The root of the device\'s file tree: a prefix for every path' -r -F
complete -c firstboot -n "__fish_firstboot_using_subcommand reset" -l tcti -d 'The TPM\'s TCTI; without --root, the default is device:/dev/tpmrm0' -r
complete -c firstboot -n "__fish_firstboot_using_subcommand reset" -l keep -d 'Keep the PIN, so that root can still use the old key'
complete -c firstboot -n "__fish_firstboot_using_subcommand reset" -s v -l verbose -d 'Log more'
complete -c firstboot -n "__fish_firstboot_using_subcommand reset" -s h -l help -d 'Print help'
complete -c firstboot -n "__fish_firstboot_using_subcommand reset" -s V -l version -d 'Print version'
complete -c firstboot -n "__fish_firstboot_using_subcommand help; and not __fish_seen_subcommand_from provision enroll renew status tpm reset help" -f -a "provision" -d 'Create the token, the key and the certificate request, where missing. Needs no network'
complete -c firstboot -n "__fish_firstboot_using_subcommand help; and not __fish_seen_subcommand_from provision enroll renew status tpm reset help" -f -a "enroll" -d 'Provision, then obtain the certificate and configure Greengrass'
complete -c firstboot -n "__fish_firstboot_using_subcommand help; and not __fish_seen_subcommand_from provision enroll renew status tpm reset help" -f -a "renew" -d 'Accept a new certificate while Greengrass runs, or ask for one that is due'
complete -c firstboot -n "__fish_firstboot_using_subcommand help; and not __fish_seen_subcommand_from provision enroll renew status tpm reset help" -f -a "status" -d 'Show the state and the next step. Changes nothing'
complete -c firstboot -n "__fish_firstboot_using_subcommand help; and not __fish_seen_subcommand_from provision enroll renew status tpm reset help" -f -a "tpm" -d 'Describe the TPM: manufacturer, firmware, limits, lockout, persistent objects'
complete -c firstboot -n "__fish_firstboot_using_subcommand help; and not __fish_seen_subcommand_from provision enroll renew status tpm reset help" -f -a "reset" -d 'Discard the identity and remove the configuration written for it'
complete -c firstboot -n "__fish_firstboot_using_subcommand help; and not __fish_seen_subcommand_from provision enroll renew status tpm reset help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
