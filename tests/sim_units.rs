//! The simulated service manager from outside. What is expected was seen of
//! systemd 257 in a container, to the word where words are compared, or stands
//! in systemd-run(1), systemd.service(5), systemd.kill(5) and systemd.timer(5).

use std::path::Path;
use std::time::Duration;

use deploy::sim::{Fault, break_host, reset};
use serde_json::json;

use crate::sim::{Ran, Sim, run_on};

async fn one() -> Sim {
    Sim::new(&[("one", json!({}))]).await
}

/// A script that waits, with a bound that only a failure meets.
fn until(condition: &str) -> String {
    format!(
        "n=0; until {condition}; do n=$((n + 1)); [ $n -lt 1200 ] || exit 99; sleep 0.05; done\n"
    )
}

impl Sim {
    /// Runs a script to its end, whatever its last word says, and gives both streams.
    async fn both(&self, script: &str) -> String {
        self.ok("one", &format!("exec 2>&1; {script}\ntrue")).await
    }

    async fn pid(&self, unit: &str) -> String {
        let text = self
            .ok("one", &format!("systemctl show -p MainPID --value {unit}"))
            .await;
        text.trim().to_owned()
    }
}

fn is_running(pid: &str) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.trim()).join("stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

/// Waits until a process is gone; false if it stays.
async fn is_gone(pid: &str) -> bool {
    for _ in 0..600 {
        if !is_running(pid) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    false
}

#[tokio::test(flavor = "multi_thread")]
async fn wait_passes_the_status_on() {
    let sim = one().await;
    for (command, status) in [
        ("true", 0),
        ("sh -c 'exit 7'", 7),
        ("sh -c 'exit 200'", 200),
        // A service may end by these signals; by others it fails.
        ("sh -c 'kill -TERM $$$$; sleep 9'", 0),
        ("sh -c 'kill -HUP $$$$; sleep 9'", 0),
        ("sh -c 'kill -KILL $$$$; sleep 9'", 255),
        ("-p SuccessExitStatus=11 sh -c 'exit 11'", 0),
        ("-p RuntimeMaxSec=50ms sleep 60", 1),
        ("-p Type=oneshot sh -c 'exit 9'", 9),
    ] {
        let ran = sim
            .run(
                "one",
                &format!("systemd-run --wait --quiet --collect {command}"),
            )
            .await;
        assert_eq!(ran.status, Some(status), "{command}: {ran:?}");
        assert_eq!(
            (ran.stdout.as_str(), ran.stderr.as_str()),
            ("", ""),
            "{command}"
        );
    }
    let ran = sim
        .run(
            "one",
            "systemd-run --unit=d --wait --collect sh -c 'kill -9 $$$$'",
        )
        .await;
    let told: Vec<&str> = ran.stderr.lines().collect();
    assert_eq!(
        told[..3],
        [
            "Running as unit: d.service",
            "Finished with result: signal",
            "Main processes terminated with: code=killed, status=9/KILL",
        ]
    );
    let started = sim.run("one", "systemd-run --unit=a sleep 60").await;
    assert!(
        started
            .stderr
            .starts_with("Running as unit: a.service; invocation ID: "),
        "{started:?}"
    );
    let missing = sim.run("one", "systemd-run nosuchprogram").await;
    assert_eq!(
        (missing.stderr.as_str(), missing.status),
        (
            "Failed to find executable nosuchprogram: No such file or directory\n",
            Some(1)
        )
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_unit_is_kept_until_it_is_reset_or_collected() {
    let sim = one().await;
    let told = sim
        .both(
            "systemd-run -q --unit=c --wait sh -c 'exit 7'; echo $?
             systemctl is-failed c; echo $?
             systemd-run -q --unit=c true; echo $?
             systemctl show c -p ActiveState,SubState,Result,ExecMainCode,ExecMainStatus,LoadState,UnitFileState
             systemctl list-units --failed --no-legend --plain
             systemctl is-system-running; echo $?
             systemctl reset-failed c; echo $?
             systemctl is-failed c; echo $?
             systemctl is-system-running
             systemctl reset-failed c; echo $?
             systemd-run -q --unit=c --wait --collect false; echo $?
             systemctl is-failed c; echo $?
             ls \"$R\"/run/systemd/transient",
        )
        .await;
    assert_eq!(
        told,
        "7\nfailed\n0\n\
         Failed to start transient service unit: Unit c.service was already loaded or has a fragment file.\n1\n\
         ExecMainCode=1\nExecMainStatus=7\nResult=exit-code\nLoadState=loaded\nActiveState=failed\nSubState=failed\nUnitFileState=transient\n\
         c.service loaded failed failed [systemd-run] /usr/bin/sh -c \"exit 7\"\n\
         degraded\n1\n0\ninactive\n4\nrunning\n\
         Failed to reset failed state of unit c.service: Unit c.service not loaded.\n1\n\
         1\ninactive\n4\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_service_has_its_name_and_its_file() {
    let sim = one().await;
    let told = sim
        .both(
            "systemd-run -q --unit=e -p TimeoutStopSec=5 -p KillMode=mixed sleep 1000
             systemd-run -q --unit=e sleep 1000; echo $?
             systemctl is-active e; echo $?
             systemctl cat e
             systemctl stop 'e*'; echo $?
             systemctl is-active e; echo $?
             systemctl stop e; echo $?
             systemctl status e; echo $?
             systemctl kill e; echo $?
             systemctl start e; echo $?",
        )
        .await;
    assert_eq!(
        told,
        "Failed to start transient service unit: Unit e.service was already loaded or has a fragment file.\n1\n\
         active\n0\n\
         # /run/systemd/transient/e.service\n\
         # This is a transient unit file, created programmatically via the systemd API. Do not edit.\n\
         [Unit]\nDescription=[systemd-run] /usr/bin/sleep 1000\n\n\
         [Service]\nTimeoutStopSec=5s\nKillMode=mixed\nExecStart=\nExecStart=\"/usr/bin/sleep\" \"1000\"\n\
         0\ninactive\n4\n\
         Failed to stop e.service: Unit e.service not loaded.\n5\n\
         Unit e.service could not be found.\n4\n\
         Failed to kill unit e.service: Unit e.service not loaded.\n1\n\
         Failed to start e.service: Unit e.service not found.\n5\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_piped_service_has_our_streams_and_its_own_session() {
    let sim = one().await;
    let session = sim.connect("one").await;
    let ran: Ran = run_on(
        &session,
        "systemd-run --wait --pipe --quiet -E A=b --setenv=C=d sh -c 'cat; echo $A $C err >&2; \
         read -r line <\"/proc/$$$$/stat\"; echo \"$$line\"; echo \"[$HOME]\" $R; nvidia-smi >/dev/null 2>&1; echo $?; exit 3'",
        b"in\n",
    )
    .await;
    assert_eq!(
        (ran.stderr.as_str(), ran.status),
        ("b d err\n", Some(3)),
        "{ran:?}"
    );
    let lines: Vec<&str> = ran.stdout.lines().collect();
    let stat: Vec<&str> = lines[1].split(' ').collect();
    assert_eq!(lines[0], "in");
    assert_eq!(
        (stat[0], stat[0]),
        (stat[4], stat[5]),
        "group and session: {stat:?}"
    );
    // As a service of systemd, it has no HOME.
    assert_eq!(lines[2], format!("[] {}", sim.root("one").display()));
    assert_eq!(
        lines[3], "127",
        "the machine has no driver, whatever ours has"
    );
    let words = run_on(
        &session,
        "systemd-run --pipe -q echo '$HOME' 'x$PATH' '$$PATH' 'a%n' '%%' 'a\\nb' 'quote\"x' 'new\nline'",
        b"",
    )
    .await;
    assert_eq!(
        words.stdout,
        "x$PATH $PATH a%n %% a\\nb quote\"x new\nline\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_outlives_who_waits_for_it() {
    let sim = one().await;
    let script = "mkfifo \"$R\"/tmp/p; exec 2>/dev/null; sleep 1000 < \"$R\"/tmp/p > /dev/null & reader=$!
                  systemd-run -q --wait --pipe --collect --unit=w sh -c 'until [ -e \"$R\"/tmp/go ]; do sleep 0.05; done; \
                  echo lost; echo $? > \"$R\"/tmp/said; exit 0' < /dev/null > \"$R\"/tmp/p & pid=$!
                  until systemctl -q is-active w; do sleep 0.05; done; kill -9 $pid $reader; wait $pid; echo $?; systemctl is-active w";
    let first = sim.connect("one").await;
    let ran = run_on(&first, script, b"").await;
    assert_eq!(ran.stdout, "137\nactive\n", "{ran:?}");
    drop(first);
    // Who writes to a pipe that nobody reads is told, and lives: services ignore SIGPIPE.
    let ended = sim
        .both(&format!(
            "systemctl is-active w; touch \"$R\"/tmp/go; {} systemctl is-active w; cat \"$R\"/tmp/said",
            until("! systemctl -q is-active w")
        ))
        .await;
    assert!(ended.starts_with("active\ninactive\n1\n"), "{ended}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_main_process_ends_the_others_and_starts_on_failure() {
    let sim = one().await;
    sim.both(
        "systemd-run -q --unit=gd --on-active=1h --on-unit-inactive=1h --timer-property=AccuracySec=1s \
         sh -c 'env > \"$R\"/root/env; systemctl is-active run1 > \"$R\"/root/state'
         systemd-run -q --unit=run1 --collect -p OnFailure=gd.service -p TimeoutStopSec=1 \
         sh -c 'sleep 1000 & echo $! > \"$R\"/root/plain; setsid sleep 1001 & echo $! > \"$R\"/root/session; \
         (setsid sh -c \"trap : TERM; echo \\$\\$ > $R/root/deaf; while :; do sleep 0.2; done\" &); wait'",
    )
    .await;
    sim.both(&until(
        "[ -s \"$R\"/root/deaf ] && [ -s \"$R\"/root/session ]",
    ))
    .await;
    let pids = sim
        .ok(
            "one",
            "cat \"$R\"/root/plain \"$R\"/root/session \"$R\"/root/deaf",
        )
        .await;
    for pid in pids.lines() {
        assert!(is_running(pid), "{pid} of {pids}");
    }
    let main = sim.pid("run1").await;
    let told = sim
        .both(&format!(
            "kill -9 {main}; {} cat \"$R\"/root/state; systemctl is-active run1; systemctl show run1 -p Result,ActiveState; systemctl stop gd.timer; systemctl is-active run1",
            until("[ -s \"$R\"/root/state ]")
        ))
        .await;
    // The unit that failed is still referred to by the one that its failure started.
    assert!(
        told.starts_with("failed\nfailed\nResult=signal\nActiveState=failed\n"),
        "{told}"
    );
    for pid in pids.lines() {
        assert!(is_gone(pid).await, "{pid} of {pids}");
    }
    let env = sim.ok("one", "sort \"$R\"/root/env").await;
    for line in [
        "MONITOR_EXIT_CODE=killed\n",
        "MONITOR_EXIT_STATUS=KILL\n",
        "MONITOR_SERVICE_RESULT=signal\n",
        "MONITOR_UNIT=run1.service\n",
    ] {
        assert!(env.contains(line), "{line} in {env}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_by_sigterm_is_no_failure() {
    let sim = one().await;
    let told = sim
        .both(&format!(
            "systemd-run -q --unit=of -p Type=oneshot -p RemainAfterExit=yes --on-active=1h touch \"$R\"/root/failed
             systemd-run -q --unit=t -p OnFailure=of.service sleep 1000
             kill \"$(systemctl show -p MainPID --value t)\"
             {} ls \"$R\"/root; systemctl is-active of",
            until("! systemctl -q is-active t")
        ))
        .await;
    assert_eq!(told, "inactive\n".to_owned(), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_does_not_stop_is_killed_after_its_time() {
    let sim = one().await;
    let told = sim
        .both(
            "systemd-run -q --unit=st -p TimeoutStopSec=200ms sh -c 'trap : TERM; while :; do sleep 0.1; done'
             systemctl stop st; echo $?
             systemctl show st -p ActiveState,Result
             systemctl reset-failed
             systemd-run -q --unit=lo -p KillMode=process --wait --collect sh -c 'sleep 1000 & echo $! > \"$R\"/root/left'
             systemd-run -q --unit=lo2 --wait --collect sh -c 'sleep 1000 & echo $! > \"$R\"/root/ended'",
        )
        .await;
    assert_eq!(told, "0\nResult=timeout\nActiveState=failed\n");
    let left = sim.ok("one", "cat \"$R\"/root/left").await;
    let ended = sim.ok("one", "cat \"$R\"/root/ended").await;
    assert!(is_running(&left));
    assert!(is_gone(&ended).await);
    sim.both(&format!("kill {left}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timer_elapses_again_after_each_end_of_its_unit() {
    let sim = one().await;
    let started = sim
        .both(
            "systemd-run --unit=g --collect --on-active=50ms --on-unit-inactive=50ms --timer-property=AccuracySec=1ms \
             sh -c 'echo \"$TRIGGER_UNIT\" >> \"$R\"/root/ticks; systemctl is-active g.service >> \"$R\"/root/states; [ ! -e \"$R\"/root/hold ] || { : > \"$R\"/root/held; sleep 1000; }'
             cat \"$R\"/run/systemd/transient/g.timer; systemctl is-active g.timer",
        )
        .await;
    assert!(
        started
            .starts_with("Running timer as unit: g.timer\nWill run service as unit: g.service\n"),
        "{started}"
    );
    assert!(
        started.contains("[Timer]\nOnActiveSec=50ms\nOnUnitInactiveSec=50ms\nAccuracySec=1ms\nRemainAfterElapse=no\n"),
        "{started}"
    );
    assert!(started.ends_with("\nactive\n"), "{started}");
    sim.both(&until("[ \"$(wc -l < \"$R\"/root/ticks)\" -ge 3 ]"))
        .await;
    let ticks = sim
        .ok("one", "sort -u \"$R\"/root/ticks \"$R\"/root/states")
        .await;
    assert_eq!(ticks, "active\ng.timer\n");
    // While the unit runs the timer waits for its end.
    let held = sim
        .both(&format!(
            "touch \"$R\"/root/hold; {} systemctl show g.timer -p SubState,NextElapseUSecMonotonic,Unit
             before=$(wc -l < \"$R\"/root/ticks); sleep 0.3; [ \"$before\" = \"$(wc -l < \"$R\"/root/ticks)\" ] && echo waits
             systemctl stop g.timer; systemctl is-active g.timer; systemctl is-active g.service
             rm \"$R\"/root/hold; systemctl stop g.service
             systemctl is-active g.timer g.service; echo $?; ls \"$R\"/run/systemd/transient",
            until("[ \"$(systemctl show -p SubState --value g.timer)\" = running ] && systemctl -q is-active g.service && [ -e \"$R\"/root/held ]")
        ))
        .await;
    assert_eq!(
        held,
        "Unit=g.service\nNextElapseUSecMonotonic=infinity\nSubState=running\nwaits\ninactive\nactive\ninactive\ninactive\n4\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timer_that_comes_once_is_gone_with_its_unit() {
    let sim = one().await;
    let told = sim
        .both(&format!(
            "systemd-run -q --unit=h --on-active=50ms --timer-property=AccuracySec=1us sh -c 'exit 4'
             {} systemctl is-active h.timer h.service; systemctl show h.timer -p LoadState; ls \"$R\"/run/systemd/transient
             systemctl reset-failed
             systemd-run -q --unit=j --on-active=100 true
             systemd-run --unit=j --on-active=100 true; echo $?
             systemd-run --unit=j true; echo $?
             systemctl list-timers --no-legend | sed 's/.* UTC//'
             systemctl start --wait j.service; systemctl stop j.timer; systemctl stop j.timer; echo $?
             ls \"$R\"/run/systemd/transient",
            until("systemctl -q is-failed h.service && ! systemctl -q is-active h.timer")
        ))
        .await;
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(
        lines[..8],
        [
            "inactive",
            "failed",
            "LoadState=not-found",
            "h.service",
            "Failed to start transient timer unit: Unit j.timer was already loaded or has a fragment file.",
            "1",
            "Failed to start transient service unit: Unit j.service was already loaded or has a fragment file.",
            "1",
        ]
    );
    assert!(lines[8].ends_with(" - - j.timer j.service"), "{told}");
    assert_eq!(
        lines[9..],
        ["Failed to stop j.timer: Unit j.timer not loaded.", "5"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reboot_asks_services_to_end_and_a_power_loss_does_not() {
    let sim = one().await;
    let start = "systemd-run -q --unit=s sh -c 'trap \"echo told > $R/root/told; exit 0\" TERM; while :; do sleep 0.1; done'
                 systemd-run -q --unit=t --on-active=1h true
                 echo x > \"$R\"/tmp/x; echo x > \"$R\"/run/x; cat \"$R\"/proc/sys/kernel/random/boot_id";
    let look = "ls \"$R\"/tmp \"$R\"/run; systemctl is-active s.service t.timer; [ -e \"$R\"/root/told ]; echo $?";
    let first = sim.both(start).await;
    let idle = sim.connect("one").await;
    let ran = sim.run("one", "systemctl reboot").await;
    assert_eq!(
        ran.status, None,
        "the connection ends with the machine: {ran:?}"
    );
    sim.up("one").await;
    assert_eq!(run_on(&idle, "true", b"").await.status, None);
    let after = sim.both(look).await;
    assert!(after.ends_with("inactive\ninactive\n0\n"), "{after}");
    assert!(!after.lines().any(|line| line == "x"), "{after}");
    let second = sim.both(&format!("rm \"$R\"/root/told; {start}")).await;
    assert_ne!(first, second, "another boot id");
    break_host(&sim.root("one"), &Fault::PowerLoss).expect("it boots again");
    let after = sim.both(look).await;
    assert!(after.ends_with("inactive\ninactive\n1\n"), "{after}");
}

/// Writes a oneshot unit that appends its name to a list, and enables it.
fn unit(name: &str, unit_lines: &str, exec: &str) -> String {
    format!(
        "printf '[Unit]\\n{unit_lines}\\n[Service]\\nType=oneshot\\nRemainAfterExit=yes\\nExecStart={exec}\\n[Install]\\nWantedBy=multi-user.target\\n' \
         > \"$R\"/etc/systemd/system/{name}.service; systemctl enable -q {name}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_boot_starts_what_is_enabled_in_its_order() {
    let sim = one().await;
    let append = |word: &str| format!("/bin/sh -c \"sleep 0.1; echo {word} >> $R/root/order\"");
    let script = [
        unit("a", "After=c.service multi-user.target", &append("a")),
        unit("b", "ConditionPathExists=!/root/never", &append("b")),
        unit("c", "After=b.service", &append("c")),
        unit("d", "ConditionPathExists=/root/never", &append("d")),
        unit(
            "own",
            "ConditionPathExists='\"$R\"'/root\\nAfter=c.service",
            &append("own"),
        ),
        unit("e", "Before=b.service", &append("e")),
        unit("f", "", "/bin/false"),
        unit("gone", "", &append("gone")),
        "rm \"$R\"/etc/systemd/system/gone.service; systemctl reboot".to_owned(),
    ]
    .concat();
    sim.run("one", &script).await;
    sim.up("one").await;
    let told = sim
        .both("cat \"$R\"/root/order; systemctl is-active a b c e d f own; systemctl show a -p SubState; systemctl list-units --failed --no-legend --plain; systemctl is-system-running")
        .await;
    assert_eq!(
        told,
        "e\nb\nc\nown\na\nactive\nactive\nactive\nactive\ninactive\nfailed\nactive\nSubState=exited\n\
         f.service loaded failed failed f.service\ndegraded\n"
            .to_owned()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_from_within_a_boot_waits_for_its_turn_unless_told_not_to() {
    let sim = one().await;
    let boot = "/bin/sh -c \"systemctl start --job-mode=ignore-dependencies late; echo rc $$? >> $R/root/order; \
                systemctl start --no-block later; echo rc $$? >> $R/root/order; sleep 0.3; echo first done >> $R/root/order\"";
    let script = [
        unit("first", "", boot),
        unit(
            "late",
            "After=first.service",
            "/bin/sh -c \"echo late >> $R/root/order\"",
        ),
        unit(
            "later",
            "After=first.service",
            "/bin/sh -c \"echo later >> $R/root/order\"",
        ),
        "systemctl reboot".to_owned(),
    ]
    .concat();
    sim.run("one", &script).await;
    sim.up("one").await;
    let told = sim
        .both("cat \"$R\"/root/order; systemctl is-active first late later")
        .await;
    assert_eq!(
        told,
        "late\nrc 0\nrc 0\nfirst done\nlater\nactive\nactive\nactive\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_before_the_ssh_server_keeps_connections_out() {
    let sim = one().await;
    let script = [
        unit(
            "slow",
            "Before=ssh.service",
            "/bin/sh -c \"until [ -e $R/root/go ]; do sleep 0.05; done\"",
        ),
        "systemctl reboot".to_owned(),
    ]
    .concat();
    sim.run("one", &script).await;
    // The connection is closed, whatever the boot has come to.
    assert!(sim.try_connect("one").await.is_none());
    std::fs::write(sim.root("one").join("root/go"), "").expect("a file");
    sim.up("one").await;
    assert_eq!(
        sim.both("systemctl is-active slow ssh sshd").await,
        "active\nactive\nactive\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_ssh_server_takes_no_new_connections() {
    let sim = one().await;
    let session = sim.connect("one").await;
    assert_eq!(
        run_on(&session, "systemctl stop sshd", b"").await.status,
        Some(0)
    );
    assert!(sim.try_connect("one").await.is_none());
    let ran = run_on(
        &session,
        "systemctl is-active ssh; systemctl start ssh",
        b"",
    )
    .await;
    assert_eq!((ran.stdout.as_str(), ran.status), ("inactive\n", Some(0)));
    assert_eq!(sim.both("systemctl is-active ssh").await, "active\n");
    // It is enabled, so a reboot brings it back.
    run_on(&session, "systemctl stop ssh; systemctl reboot", b"").await;
    sim.up("one").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn long_running_units_of_files_are_processes() {
    let sim = one().await;
    let script = "printf '[Unit]\\nDescription=Long\\n[Service]\\nExecStart=/usr/bin/sleep 1000\\nExecStop=/bin/sh -c \"echo stopped > $R/root/stopped\"\\n' > \"$R\"/etc/systemd/system/long.service
                  systemctl start long; systemctl is-active long; systemctl show long -p SubState,LoadState,FragmentPath";
    let told = sim
        .both(&format!(
            "mkdir -p \"$R\"/root; : > \"$R\"/root/stopped; {script}"
        ))
        .await;
    assert_eq!(
        told,
        "active\nLoadState=loaded\nSubState=running\nFragmentPath=/etc/systemd/system/long.service\n"
    );
    let written = sim
        .both("systemd-run -q --wait --unit=talk sh -c 'echo one; echo two >&2'; journalctl -u talk; journalctl -n 1 -u talk.service")
        .await;
    assert_eq!(written, "one\ntwo\ntwo\n");
    let pid = sim.pid("long").await;
    assert!(is_running(&pid));
    let told = sim
        .both("systemctl restart long; systemctl is-active long; systemctl stop long; systemctl is-active long; echo $?")
        .await;
    assert_eq!(told, "active\ninactive\n3\n");
    assert!(is_gone(&pid).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_machine_outlives_its_folder() {
    let sim = one().await;
    let start = "systemd-run -q --unit=s sleep 1000; systemd-run -q --unit=t --on-active=1h true
                 systemctl show -p MainPID --value s; cat \"$R\"/.sim/units/*.json | tr ',{}' '\\n' | sed -n 's/^\"pid\"://p'";
    let pids = sim.both(start).await;
    assert!(pids.lines().count() >= 3, "{pids}");
    reset(&sim.root("one")).expect("it is reset");
    for pid in pids.lines() {
        assert!(is_gone(pid).await, "{pid} of {pids}");
    }
    let pids = sim.both(start).await;
    // A keeper may be writing down what it sees while its folder goes.
    while sim.root("one").exists() {
        let _ = std::fs::remove_dir_all(sim.root("one"));
    }
    for pid in pids.lines() {
        assert!(is_gone(pid).await, "{pid} of {pids}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_scripts_build_on_works_in_the_folder() {
    let sim = one().await;
    let told = sim
        .both(
            "cd \"$R\"/tmp; mkfifo p; (echo through > p &); cat p; echo 1<>p; echo x >/dev/null
             exec 9<>lock; flock -n 9 && echo locked; (exec 9>&-; exec 8<>lock; flock -n 8 || echo taken)
             setsid sh -c 'echo session'; mktemp >/dev/null && echo temporary; timeout 5 sync -f lock; echo $?",
        )
        .await;
    assert_eq!(told, "through\nlocked\ntaken\nsession\ntemporary\n0\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_full_for_services_too() {
    let sim = one().await;
    sim.both("true").await;
    break_host(&sim.root("one"), &Fault::DiskFull(4096)).expect("it is broken");
    let ran = sim
        .run("one", "systemd-run -q --wait --collect sh -c 'head -c 9000 /dev/zero > \"$R\"/root/big; echo $? > \"$R\"/root/rc'; stat -c %s \"$R\"/root/big; cat \"$R\"/root/rc")
        .await;
    assert_eq!(ran.stdout, "4096\n1\n", "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_is_no_systemd_its_tools_say_so() {
    let sim = Sim::new(&[("one", json!({"systemd": false}))]).await;
    let told = sim
        .both("systemd-run true; echo $?; systemctl is-active x; echo $?; systemctl is-system-running; echo $?")
        .await;
    let refused = "System has not been booted with systemd as init system (PID 1). Can't operate.\n\
                   Failed to connect to bus: Host is down\n1\n";
    assert_eq!(told, format!("{refused}{refused}offline\n1\n"));
}
