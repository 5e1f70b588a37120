#!/bin/bash
# Measures the no-change check of N hosts against the bare floor: the same number
# of russh connections, each running the same script of probes (tests/bench/floor.rs).
# Both run in turns on real sshd listeners on loopback; ratios of medians are printed.
#
#   tests/bench.sh [N] [ROUNDS]     100 hosts and 5 rounds if not given (N up to 250)
#
# Needs bash, OpenSSH's server, GNU time (package `time`) and root or a user that may
# run its own sshd. Everything lives in a temporary folder that is removed at the end;
# only the sshd processes started here are ended.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
N=${1:-100}
ROUNDS=${2:-5}
PORT=${BENCH_PORT:-2322}
RELAY_PORT=${BENCH_RELAY_PORT:-2323}
RTT_MS=50

die() { echo "error: $*" >&2; exit 1; }
sshd=$(command -v sshd || echo /usr/sbin/sshd)
[ -x "$sshd" ] || die "no sshd: apt-get install openssh-server"
[ -x /usr/bin/time ] || die "no GNU time: apt-get install time"
if [ "$N" -lt 1 ] || [ "$N" -gt 250 ]; then die "N must be 1 to 250"; fi

cargo build --release --locked --bin deploy --example floor --example trips
bin=$PWD/target/release
dir=$(mktemp -d)
export DEPLOY_HISTORY=$dir/history
relay=
cleanup() {
    local pid
    [ -z "$relay" ] || kill "$relay" 2>/dev/null || true
    for pid in "$dir"/h*/sshd.pid; do
        [ -s "$pid" ] && kill "$(cat "$pid")" 2>/dev/null
    done
    rm -rf "$dir"
}
trap cleanup EXIT

# --- the hosts -----------------------------------------------------------------
[ "$(id -u)" != 0 ] || mkdir -p /run/sshd
ssh-keygen -q -t ed25519 -N '' -C bench -f "$dir/key"
mkdir "$dir/tools" "$dir/project" "$dir/project/playbooks" "$dir/project/templates"
cat >"$dir/tools/capture" <<'SH'
#!/bin/sh
# Keeps the exec request of the last connection, then runs it.
printf '%s' "$SSH_ORIGINAL_COMMAND" >"${0%/*}/../exec"
exec sh -c "$SSH_ORIGINAL_COMMAND"
SH
chmod +x "$dir/tools/capture"
hosts=()
for ((i = 1; i <= N; i++)); do
    host=$dir/h$i
    mkdir -p "$host/root/etc" "$host/root/proc" "$host/root/sys/bus/pci/devices"
    ssh-keygen -q -t ed25519 -N '' -C "h$i" -f "$host/key"
    cat >"$host/sshd_config" <<CONF
ListenAddress 127.0.1.$i
Port $PORT
HostKey $host/key
AuthorizedKeysFile $dir/key.pub
PidFile $host/sshd.pid
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
StrictModes no
MaxStartups 500:30:1000
CONF
    printf '[127.0.1.%d]:%d %s\n' "$i" "$PORT" "$(cut -d' ' -f1,2 "$host/key.pub")" >>"$dir/known_hosts"
    "$sshd" -f "$host/sshd_config" -E "$host/log"
    hosts+=("127.0.1.$i")
done
printf '[127.0.0.1]:%d %s\n' "$RELAY_PORT" "$(cut -d' ' -f1,2 "$dir/h1/key.pub")" >>"$dir/known_hosts"
printf 'Host *\n  UserKnownHostsFile %s\n  IdentitiesOnly yes\n' "$dir/known_hosts" >"$dir/ssh_config"
user=$(id -un)

# --- what is checked: facts and five templates ------------------------------------
inventory() { # NAME ADDRESS PORT ROOT ...
    printf 'all:\n  hosts:\n'
    while [ $# -gt 0 ]; do
        printf '    %s: {ansible_host: %s, ansible_port: %s, ansible_user: %s, deploy_root: %s, ansible_ssh_private_key_file: %s}\n' \
            "$1" "$2" "$3" "$user" "$4" "$dir/key"
        shift 4
    done
}
args=()
for ((i = 1; i <= N; i++)); do args+=("h$i" "127.0.1.$i" "$PORT" "$dir/h$i/root"); done
inventory "${args[@]}" >"$dir/project/hosts.yml"
inventory h1 127.0.0.1 "$RELAY_PORT" "$dir/h1/root" >"$dir/project/relay.yml"
{
    printf -- '- name: Benchmark\n  hosts: all\n  tasks:\n    - name: Look at the GPUs\n      gpu_discovery:\n'
    for t in 1 2 3 4 5; do
        printf 'setting = {{ inventory_hostname }}-%s\n' $t >"$dir/project/templates/bench$t.j2"
        printf -- '    - name: File %s\n      template: {src: bench%s.j2, dest: /etc/bench%s.conf, mode: "0644", owner: %s}\n' $t $t $t "$user"
    done
} >"$dir/project/playbooks/bench.yml"
play() { # INVENTORY ARGS...
    local inventory=$1
    shift
    "$bin/deploy" run "$dir/project/playbooks/bench.yml" -i "$dir/project/$inventory" --project "$dir/project" -F "$dir/ssh_config" -T 120 -f "$N" "$@"
}
play hosts.yml --yes | tail -1
play hosts.yml --check | tail -1

# The floor runs what deploy asks for in its exec request, word for word: sshd of host
# 1 is told for one connection to keep it.
kill "$(cat "$dir/h1/sshd.pid")"
for ((k = 0; k < 100; k++)); do [ -e "$dir/h1/sshd.pid" ] || break; sleep 0.05; done
{ cat "$dir/h1/sshd_config"; echo "ForceCommand $dir/tools/capture"; } >"$dir/h1/capture_config"
"$sshd" -f "$dir/h1/capture_config" -E "$dir/h1/log"
play hosts.yml --check --limit h1 >/dev/null
[ -s "$dir/exec" ] || die "the exec request was not captured"
kill "$(cat "$dir/h1/sshd.pid")"
for ((k = 0; k < 100; k++)); do [ -e "$dir/h1/sshd.pid" ] || break; sleep 0.05; done
"$sshd" -f "$dir/h1/sshd_config" -E "$dir/h1/log"

# --- wall, CPU, memory ------------------------------------------------------------
hz=$(getconf CLK_TCK)
machine_cpu() { # clock ticks in which any processor was busy
    awk '$1 == "cpu" { print $2 + $3 + $4 + $7 + $8 }' /proc/stat
}
listeners=$(cat "$dir"/h*/sshd.pid | paste -sd,)
# The hosts' share is what the whole machine used less what the controller used: a
# connection's processes are not all children that somebody waits for. So nothing else
# should run meanwhile.
measure() { # NAME COMMAND...
    local name=$1 before after
    shift
    before=$(machine_cpu)
    /usr/bin/time -a -o "$dir/$name.time" -f '%e %U %S %M' "$@" >/dev/null
    while pgrep -P "$listeners" >/dev/null; do sleep 0.05; done
    after=$(machine_cpu)
    tail -1 "$dir/$name.time" |
        awk -v busy=$((after - before)) -v hz="$hz" -v n="$N" '{ print (busy / hz - $2 - $3) * 1000 / n }' >>"$dir/$name.host"
}
echo "$N hosts, $ROUNDS rounds in turns"
for ((round = 0; round < ROUNDS; round++)); do
    measure floor "$bin/examples/floor" "$dir/key" "$PORT" "$user" "$dir/exec" "$N" "${hosts[@]}"
    measure deploy "$bin/deploy" run "$dir/project/playbooks/bench.yml" -i "$dir/project/hosts.yml" \
        --project "$dir/project" -F "$dir/ssh_config" -T 120 -f "$N" --check
done
median() { sort -n | awk '{v[NR]=$1} END {print (NR%2) ? v[(NR+1)/2] : (v[NR/2]+v[NR/2+1])/2}'; }
column() { awk "{print $2}" "$dir/$1.time" | median; }
report() { # WHAT FLOOR DEPLOY UNIT
    awk -v what="$1" -v f="$2" -v d="$3" -v unit="$4" \
        'BEGIN { printf "%-28s floor %9.2f %-3s deploy %9.2f %-3s ratio %5.2f\n", what, f, unit, d, unit, (f > 0) ? d / f : 0 }'
}
report 'wall' "$(column floor '$1')" "$(column deploy '$1')" s
report 'controller CPU a host' "$(column floor "(\$2+\$3)*1000/$N")" "$(column deploy "(\$2+\$3)*1000/$N")" ms
report 'host CPU a host' "$(median <"$dir/floor.host")" "$(median <"$dir/deploy.host")" ms
report 'peak memory' "$(column floor '$4/1024')" "$(column deploy '$4/1024')" MiB

# --- round trips --------------------------------------------------------------------
"$bin/examples/trips" "127.0.0.1:$RELAY_PORT" "127.0.1.1:$PORT" $((RTT_MS / 2)) >"$dir/trips" &
relay=$!
for ((k = 0; k < 100; k++)); do
    (exec 3<>"/dev/tcp/127.0.0.1/$RELAY_PORT") 2>/dev/null && break
    sleep 0.05
done
sleep 0.5
trips() { # NAME COMMAND...
    local name=$1 lines count
    shift
    lines=$(wc -l <"$dir/trips")
    "$@" >/dev/null || [ $? = 2 ]
    for ((k = 0; k < 100; k++)); do
        [ "$(wc -l <"$dir/trips")" -gt "$lines" ] && break
        sleep 0.05
    done
    count=$(tail -1 "$dir/trips")
    # One more for TCP's own handshake, which a relay cannot see.
    printf '%-28s %d round trips\n' "$name" $((count + 1))
}
trips 'floor, one host' "$bin/examples/floor" "$dir/key" "$RELAY_PORT" "$user" "$dir/exec" 1 127.0.0.1
trips 'deploy, no change' play relay.yml --check
for t in 1 2 3 4 5; do echo 'changed = {{ inventory_hostname }}' >"$dir/project/templates/bench$t.j2"; done
trips 'deploy, check of 5 changes' play relay.yml --check
trips 'deploy, apply of 5 files' play relay.yml --yes
