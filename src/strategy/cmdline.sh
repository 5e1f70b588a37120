# The kernel's command line, as the boot loader keeps it. Needs $R, $RUN and the run's own
# functions. LOADER is grub, grubby, kernel-install or proxmox; PRESENT and ABSENT are words in
# one argument each, of which a bare name in ABSENT means that with any value. Sourced; POSIX sh.

# cmdline_fits PRESENT ABSENT LINE: succeeds if the line has all of the first and none of the
# second.
cmdline_fits() (
    set -f
    for want in $1; do
        case " $3 " in
        *" $want "*) ;;
        *)
            printf '%s\n' "kernel command line: $want is missing: $3" >&2
            exit 1
            ;;
        esac
    done
    for not in $2; do
        for word in $3; do
            case $not in
            *=*) [ "$word" = "$not" ] || continue ;;
            *) [ "${word%%=*}" = "$not" ] || continue ;;
            esac
            printf '%s\n' "kernel command line: $word is still there: $3" >&2
            exit 1
        done
    done
    exit 0
)

# cmdline_lines LOADER: what the next boot gives to the kernel, a line an entry.
cmdline_lines() (
    case $1 in
    # Of grub's entries the first is the one that boots; others are for repairs.
    grub) awk '$1 == "linux" || $1 == "linux16" || $1 == "linuxefi" { print; exit }' "$R/boot/grub/grub.cfg" ;;
    grubby) grubby --info=ALL | sed -n 's/^args="\(.*\)"$/\1/p' ;;
    kernel-install)
        for folder in "$R/boot" "$R/efi" "$R/boot/efi"; do
            for entry in "$folder"/loader/entries/*.conf; do
                if [ -f "$entry" ]; then sed -n 's/^options[[:space:]]*//p' "$entry"; fi
            done
        done
        ;;
    proxmox) cat "$R/etc/kernel/cmdline" ;;
    esac
)

# cmdline_is LOADER PRESENT ABSENT: succeeds if the next boot has it so; once this run has
# restarted the host, if the running kernel has it so as well.
cmdline_is() (
    lines=$(cmdline_lines "$1") || exit 1
    if [ -z "$lines" ]; then
        printf '%s\n' "kernel command line: no entry of the boot loader ($1) can be read" >&2
        exit 1
    fi
    printf '%s\n' "$lines" | while IFS= read -r line; do
        cmdline_fits "$2" "$3" "$line" || exit 1
    done || exit 1
    [ -f "$RUN/boot" ] || exit 0
    [ "$(cat "$RUN/boot")" != "$(cat "$R/proc/sys/kernel/random/boot_id")" ] || exit 0
    cmdline_fits "$2" "$3" "$(cat "$R/proc/cmdline")"
)

# cmdline_refresh LOADER: has the boot loader take over what its files say.
cmdline_refresh() (
    case $1 in
    grub) update-grub ;;
    proxmox) proxmox-boot-tool refresh ;;
    kernel-install)
        for modules in "$R"/usr/lib/modules/*; do
            version=${modules##*/}
            for image in "$modules/vmlinuz" "$R/boot/vmlinuz-$version"; do
                [ -f "$image" ] || continue
                kernel-install add "$version" "$image" || exit 1
                break
            done
        done
        ;;
    esac
)

# cmdline_forget PATH: our file goes; cmdline_forgotten PATH: succeeds if it is gone.
cmdline_forget() (
    rm -f "$1"
)
cmdline_forgotten() (
    [ -e "$1" ] || exit 0
    printf '%s\n' "$1 is still there" >&2
    exit 1
)

# cmdline_folder PATH: makes the folder of a file, and remembers that it was not there.
cmdline_folder() (
    [ ! -d "${1%/*}" ] || exit 0
    touch "$RUN/snapshot/kernel-cmdline-folder" && mkdir -p "${1%/*}"
)
cmdline_no_folder() (
    [ ! -f "$RUN/snapshot/kernel-cmdline-folder" ] || rmdir "${1%/*}" 2>/dev/null || :
)

# cmdline_grubby PRESENT ABSENT: in all entries.
cmdline_grubby() (
    grubby --update-kernel=ALL ${1:+--args="$1"} ${2:+--remove-args="$2"}
)

# What grubby changes; cmdline_save keeps all of it in FOLDER, cmdline_restore brings it back.
# Entries of kernels that were installed meanwhile are left alone.
cmdline_files() {
    for file in "$R"/boot/loader/entries/*.conf "$R/etc/kernel/cmdline" "$R/etc/default/grub" \
        "$R/boot/grub2/grubenv" "$R/boot/grub2/grub.cfg"; do
        if [ -f "$file" ]; then printf '%s\n' "${file#"$R"}"; fi
    done
}
cmdline_save() (
    [ ! -f "$1/all" ] || exit 0
    mkdir -p "$1" || exit 1
    number=0
    cmdline_files >"$1/files" || exit 1
    while IFS= read -r file; do
        number=$((number + 1))
        cp -p "$R$file" "$1/$number" || exit 1
    done <"$1/files"
    mv "$1/files" "$1/all"
)
cmdline_restore() (
    [ -f "$1/all" ] || {
        echo "kernel command line: there is no copy of the boot loader's files" >&2
        exit 1
    }
    number=0
    while IFS= read -r file; do
        number=$((number + 1))
        # Over what is there: these may be on a file system that has no links or owners.
        cmp -s "$1/$number" "$R$file" || cp -p "$1/$number" "$R$file" || exit 1
    done <"$1/all"
)

# cmdline_initramfs TOOL
cmdline_initramfs() (
    case $1 in
    update-initramfs) update-initramfs -u ;;
    dracut) dracut -f ;;
    mkinitcpio) mkinitcpio -P ;;
    esac
)
