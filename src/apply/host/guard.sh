#!/bin/sh
# Watches over one run from outside, so that no host is left in between whatever
# becomes of its runner and of whoever started it:
#
#   guard.sh arm       set it, and see that it is set; `armed` says what it is
#   guard.sh disarm    take it away, and see that it is away
#   guard.sh tick      look once: called by the timer
#   guard.sh watch     look again and again: the process where there is no systemd
#   guard.sh boot      look once, after the host was restarted
#   guard.sh units-up  the boot is over, and no unit failed in it that had not before
#
# It decides nothing but when to call `runner.sh expire`, which takes the lock, looks
# at the status again and undoes, or after a wanted restart `runner.sh continue`. Where
# systemd runs, it is a timer, and for as long as the run is open a unit that is started at
# boot before the services that use GPUs. Elsewhere it is a process, which does not outlive
# a restart of the host.

# shellcheck source-path=SCRIPTDIR
umask 077
RUN=${0%/*}
. "$RUN/lib.sh"
. "$RUN/lib/process.sh"
. "$RUN/lib/deadline.sh"
. "$RUN/lib/status.sh"
. "$RUN/lib/lock.sh"
STATE=${RUN%/runs/*}
id=${RUN##*/}
timer=deploy-guard-$id
unit=deploy-boot-$id.service
units=$R/etc/systemd/system
wanted=$units/multi-user.target.wants
cd "${R:-/}" || exit

arm() {
    rm -f "$RUN/armed"
    if with_systemd; then arm_timer; else arm_process; fi
}

# The timer first: where the unit gets half-way only, it comes again until what is there of
# it could be taken away. Both are there before anything is changed.
arm_timer() {
    if ! systemctl --quiet is-active "$timer.timer" 2>/dev/null; then
        # Not known before version 236.
        collect=
        if systemd-run --help | grep -q -e --collect; then collect=--collect; fi
        # shellcheck disable=SC2086 # no word where it is not known
        systemd-run --quiet $collect --unit="$timer" --description="Undoes deploy run $id unless it ends well" \
            --on-active=10 --on-unit-inactive=10 --timer-property=AccuracySec=1s \
            /bin/sh "$RUN/guard.sh" tick || return 1
    fi
    boot_unit | put_beside "$units/$unit" || return 1
    if [ ! -d "$wanted" ]; then
        (umask 022 && mkdir "$wanted") && : >"$RUN/made-wanted" || return 1
    fi
    put_link "$wanted/$unit" "../$unit" && flush "$units" || return 1
    now=$(systemctl is-active "$timer.timer")
    if [ "$now" != active ] || [ ! -e "$wanted/$unit" ]; then
        say "the timer $timer.timer is $now"
        return 1
    fi
    echo timer >"$RUN/armed"
}

boot_unit() {
    cat <<UNIT
# Written by deploy for the time of run $id; removed when it is over.
[Unit]
Description=Undoes or continues deploy run $id
After=local-fs.target systemd-modules-load.service nvidia-persistenced.service nvidia-fabricmanager.service
Before=deploy-gpu.service nvidia-cdi-refresh.service nvidia-dcgm.service nvsm.service dcgm-exporter.service
Before=docker.service podman.service podman-restart.service containerd.service crio.service
Before=kubelet.service k3s.service k3s-agent.service incus.service libvirtd.service
RequiresMountsFor=$RUN
ConditionPathExists=$RUN/guard.sh

[Service]
Type=oneshot
ExecStart=/bin/sh $RUN/guard.sh boot
TimeoutStartSec=infinity
TimeoutStopSec=10
UNIT
}

# put_beside PATH: from standard input, readable for all, the old one or the new one.
put_beside() {
    temp=$(beside "$1")
    rm -f "$temp"
    if (umask 022 && set -C && cat >"$temp") && flush "$temp" && mv -f "$temp" "$1"; then return 0; fi
    rm -f "$temp"
    return 1
}

arm_process() {
    if at_work guard.pid guard.sh; then echo process >"$RUN/armed"; return 0; fi
    detach='nohup'
    if command -v setsid >/dev/null; then detach=setsid; fi
    # Nothing of ours stays open in it, or we would be waited for.
    (exec $detach sh "$RUN/guard.sh" watch) </dev/null >/dev/null 2>&1 &
    echo "$!" >"$RUN/guard.pid"
    tries=0
    until at_work guard.pid guard.sh; do
        # Thirty seconds: a host may have much to do.
        if [ "$tries" -ge 600 ]; then
            say "the guard's process did not start"
            return 1
        fi
        if sleep 0.05 2>/dev/null; then tries=$((tries + 1)); else
            sleep 1
            tries=$((tries + 20))
        fi
    done
    echo process >"$RUN/armed"
}

# What calls us goes last: if anything cannot be taken away now, or whoever takes it
# away is killed, it comes again and tries again.
disarm() {
    # What an arming that was killed had in the making.
    rm -f "$(beside "$units/$unit")" "$(beside "$wanted/$unit")" || return 1
    if [ -e "$units/$unit" ] || [ -L "$wanted/$unit" ]; then
        rm -f "$wanted/$unit" "$units/$unit" || return 1
        if [ -f "$RUN/made-wanted" ]; then rmdir "$wanted" 2>/dev/null; rm -f "$RUN/made-wanted"; fi
        flush "$units"
    fi
    if [ -f "$RUN/guard.pid" ]; then
        if at_work guard.pid guard.sh; then kill "$pid"; fi
        rm -f "$RUN/guard.pid"
    fi
    if with_systemd; then
        if systemctl --quiet is-active "$timer.timer" 2>/dev/null; then
            systemctl stop "$timer.timer" || return 1
        fi
        now=$(systemctl is-active "$timer.timer")
        if [ "$now" = active ]; then
            say "the timer $timer.timer is still active"
            return 1
        fi
    fi
    rm -f "$RUN/armed"
}

look() {
    [ -d "$RUN" ] || exit 0
    if lock_is_held "$STATE" && ! is_late; then return 0; fi
    # A process whose number nobody knows ends by itself.
    if sh "$RUN/runner.sh" expire && is_over "$(status_of "$RUN")"; then exit; fi
}

# is_late: whoever has the lock has had more time than all of it may take. Of a run that
# waits to be confirmed, that is whoever is just confirming it. A deadline of another boot
# says nothing: whoever has the lock now is about to write one.
is_late() {
    overdue_by "$RUN" || return 1
    total=0
    if [ "$(status_of "$RUN")" = unconfirmed ]; then read -r _ _ total <"$RUN/guard"; fi
    [ "$late" -ge "$total" ]
}

watch() {
    trap : HUP
    while :; do
        look
        sleep 1
    done
}

# After a wanted restart the run goes on; after any other it is undone.
boot() {
    DEPLOY_AT_BOOT=1
    export DEPLOY_AT_BOOT
    if is_over "$(status_of "$RUN")"; then exec sh "$RUN/runner.sh" expire; fi
    . "$RUN/lib/limits.sh"
    limited 60 "$RUN/guard.sh" arm
    if [ "$(status_of "$RUN")" = rebooting ] && ! grep -qxF "$(boot_id)" "$RUN/boot"; then
        exec sh "$RUN/runner.sh" continue
    fi
    exec sh "$RUN/runner.sh" expire
}

units_up() {
    systemctl is-system-running --wait >/dev/null
    new=$(systemctl --failed --no-legend --plain list-units | grep -vxFf "$RUN/failed-units")
    [ -z "$new" ] || { say "failed since the host was restarted: $new"; return 1; }
}

case ${1-} in
    arm) arm ;;
    disarm) disarm ;;
    tick) look ;;
    watch) watch ;;
    boot) boot ;;
    units-up) units_up ;;
    *) echo "guard.sh arm|disarm|tick|watch|boot|units-up" >&2; exit 64 ;;
esac
