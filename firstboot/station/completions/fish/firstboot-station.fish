# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_firstboot_station_global_optspecs
    string join \n h/help V/version
end

function __fish_firstboot_station_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_firstboot_station_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_firstboot_station_using_subcommand
    set -l cmd (__fish_firstboot_station_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c firstboot-station -n "__fish_firstboot_station_needs_command" -s h -l help -d 'Print help'
complete -c firstboot-station -n "__fish_firstboot_station_needs_command" -s V -l version -d 'Print version'
complete -c firstboot-station -n "__fish_firstboot_station_needs_command" -f -a "issue" -d 'Check requests, issue certificates with your CA, and write wrapped replies'
complete -c firstboot-station -n "__fish_firstboot_station_needs_command" -f -a "wrap" -d 'Check requests and wrap certificates that another CA, such as AWS IoT, issued for them'
complete -c firstboot-station -n "__fish_firstboot_station_needs_command" -f -a "reissue" -d 'Renew certificates: issue one for a thing\'s next key if its key in service has signed the request, too'
complete -c firstboot-station -n "__fish_firstboot_station_needs_command" -f -a "inspect" -d 'Show what a request or a reply contains, and what is wrong with it'
complete -c firstboot-station -n "__fish_firstboot_station_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c firstboot-station -n "__fish_firstboot_station_using_subcommand issue" -l ca -d 'Your CA\'s certificate (PEM). The certificates of its issuers may follow it, and then go to the devices, too' -r -F
complete -c firstboot-station -n "__fish_firstboot_station_using_subcommand issue" -l key -d 'The CA\'s key: a PEM file or a PKCS#11 URI' -r
complete -c firstboot-station -n "__fish_firstboot_station_using_subcommand issue" -l pin-file -d 'File whose first line is the token\'s PIN or the key file\'s pass phrase' -r -F
complete -c firstboot-station -n "__fish_firstboot_station_using_subcommand issue" -l pkcs11-module -d 'The PKCS#11 library, if the URI has no module-path' -r -F
complete -c firstboot-station -n "__fish_firstboot_station_using_subcommand issue" -l out -d 'Directory for <thing>.reply.json (or <thing>.pem), not a symbolic link. A second run waits until this one has finished' -r -F
complete -c firstboot-station -n "__fish_firstboot_station_using_subcommand issue" -l inventory -d 'Append a line for each certificate to this file, and refuse names that it gives to others: .csv, or .jsonl for AWS IoT\'s bulk registration' -r -F
complete -c firstboot-station -n "__fish_firstboot_station_using_subcommand issue" -l vendor-ca -d 'Root and intermediate CA certificates of TPM manufacturers: files or directories, PEM or DER; may be repeated' -r -F
complete -c firstboot-station -n "__fish_firstboot_station_using_subcommand issue" -l ek-allow-list -d 'Accept only these TPMs: on each line the SHA-256 of an EK certificate and the thing\'s name. A TPM without a name gets whatever name it asks for' -r -F
complete -c firstboot-station -n "__fish_firstboot_station_using_subcommand issue" -l days -d 'Validity of the certificates in days; may not exceed that of the CA' -r
complete -c firstboot-station -n "__fish_firstboot_station_using_subcommand issue" -l force -d 'Also answer requests that already have a reply, and let a name pass to another TPM or key'
complete -c firstboot-station -n "__fish_firstboot_station_using_subcommand issue" -s h -l help -d 'Print help'
complete -c firstboot-station -n "__fish_firstboot_station_using_subcommand issue" -s V -l version -d 'Print version'
complete -c firstboot-station -n "__fish_firstboot_station_using_subcommand wrap" -l ca -d 'Your CA\'s certificate (PEM). The certificates of its issuers may follow it, and then go to the devices, too' -r -F
complete -c firstboot-station -n "__fish_firstboot_station_using_subcommand wrap" -l key -d 'The CA\'s key: a PEM file or a PKCS#11 URI' -r
complete -c firstboot-station -n "__fish_firstboot_station_using_subcommand wrap" -l pin-file -d 'File whose first line is the token\'s PIN or the key file\'s pass phrase' -r -F
complete -c firstboot-station -n "__fish_firstboot_station_using_subcommand wrap" -l pkcs11-module -d 'The PKCS#11 library, if the URI has no module-path' -r -F
complete -c firstboot-station -n "__fish_firstboot_station_using_subcommand wrap" -l out -d 'Directory for <thing>.reply.json (or <thing>.pem), not a symbolic link. A second run waits until this one has finished' -r -F
complete -c firstboot-station -n "__fish_firstboot_station_using_subcommand wrap" -l inventory -d 'Append a line for each certificate to this file, and refuse names that it gives to others: .csv, or .jsonl for AWS IoT\'s bulk registration' -r -F
complete -c firstboot-station -n "__fish_firstboot_station_using_subcommand wrap" -l vendor-ca -d 'Root and intermediate CA certificates of TPM manufacturers: files or directories, PEM or DER; may be repeated' -r -F
complete -c firstboot-station -n "__fish_firstboot_station_using_subcommand wrap" -l ek-allow-list -d 'Accept only these TPMs: on each line the SHA-256 of an EK certificate and the thing\'s name. A TPM without a name gets whatever name it asks for' -r -F
complete -c firstboot-station -n "__fish_firstboot_station_using_subcommand wrap" -l certificate -d 'The certificate (PEM; - for standard input), or a directory of <thing>.pem files' -r -F
complete -c firstboot-station -n "__fish_firstboot_station_using_subcommand wrap" -l force -d 'Also answer requests that already have a reply, and let a name pass to another TPM or key'
complete -c firstboot-station -n "__fish_firstboot_station_using_subcommand wrap" -s h -l help -d 'Print help'
complete -c firstboot-station -n "__fish_firstboot_station_using_subcommand wrap" -s V -l version -d 'Print version'
complete -c firstboot-station -n "__fish_firstboot_station_using_subcommand reissue" -l ca -d 'Your CA\'s certificate (PEM). The certificates of its issuers may follow it, and then go to the devices, too' -r -F
complete -c firstboot-station -n "__fish_firstboot_station_using_subcommand reissue" -l key -d 'The CA\'s key: a PEM file or a PKCS#11 URI' -r
complete -c firstboot-station -n "__fish_firstboot_station_using_subcommand reissue" -l pin-file -d 'File whose first line is the token\'s PIN or the key file\'s pass phrase' -r -F
complete -c firstboot-station -n "__fish_firstboot_station_using_subcommand reissue" -l pkcs11-module -d 'The PKCS#11 library, if the URI has no module-path' -r -F
complete -c firstboot-station -n "__fish_firstboot_station_using_subcommand reissue" -l out -d 'Directory for <thing>.reply.json (or <thing>.pem), not a symbolic link. A second run waits until this one has finished' -r -F
complete -c firstboot-station -n "__fish_firstboot_station_using_subcommand reissue" -l inventory -d 'Append a line for each certificate to this file, and refuse names that it gives to others: .csv, or .jsonl for AWS IoT\'s bulk registration' -r -F
complete -c firstboot-station -n "__fish_firstboot_station_using_subcommand reissue" -l days -d 'Validity of the certificates in days; may not exceed that of the CA' -r
complete -c firstboot-station -n "__fish_firstboot_station_using_subcommand reissue" -l in-service -d 'Certificates in service that the inventory or the CA does not know: a PEM file, or a directory of <thing>.pem files. They count whatever the inventory says' -r -F
complete -c firstboot-station -n "__fish_firstboot_station_using_subcommand reissue" -l again -d 'Also answer requests that already have a certificate'
complete -c firstboot-station -n "__fish_firstboot_station_using_subcommand reissue" -s h -l help -d 'Print help'
complete -c firstboot-station -n "__fish_firstboot_station_using_subcommand reissue" -s V -l version -d 'Print version'
complete -c firstboot-station -n "__fish_firstboot_station_using_subcommand inspect" -l vendor-ca -d 'Root and intermediate CA certificates of TPM manufacturers: files or directories, PEM or DER; may be repeated' -r -F
complete -c firstboot-station -n "__fish_firstboot_station_using_subcommand inspect" -l ek-allow-list -d 'Accept only these TPMs: on each line the SHA-256 of an EK certificate and the thing\'s name. A TPM without a name gets whatever name it asks for' -r -F
complete -c firstboot-station -n "__fish_firstboot_station_using_subcommand inspect" -s h -l help -d 'Print help'
complete -c firstboot-station -n "__fish_firstboot_station_using_subcommand inspect" -s V -l version -d 'Print version'
complete -c firstboot-station -n "__fish_firstboot_station_using_subcommand help; and not __fish_seen_subcommand_from issue wrap reissue inspect help" -f -a "issue" -d 'Check requests, issue certificates with your CA, and write wrapped replies'
complete -c firstboot-station -n "__fish_firstboot_station_using_subcommand help; and not __fish_seen_subcommand_from issue wrap reissue inspect help" -f -a "wrap" -d 'Check requests and wrap certificates that another CA, such as AWS IoT, issued for them'
complete -c firstboot-station -n "__fish_firstboot_station_using_subcommand help; and not __fish_seen_subcommand_from issue wrap reissue inspect help" -f -a "reissue" -d 'Renew certificates: issue one for a thing\'s next key if its key in service has signed the request, too'
complete -c firstboot-station -n "__fish_firstboot_station_using_subcommand help; and not __fish_seen_subcommand_from issue wrap reissue inspect help" -f -a "inspect" -d 'Show what a request or a reply contains, and what is wrong with it'
complete -c firstboot-station -n "__fish_firstboot_station_using_subcommand help; and not __fish_seen_subcommand_from issue wrap reissue inspect help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
