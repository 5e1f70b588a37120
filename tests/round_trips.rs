//! What safety costs on a slow link: how often `deploy` waits for an answer of a real
//! OpenSSH server behind a relay that holds every byte back. Turns are counted, not time.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Ended, Scratch};
use crate::ssh::{Server, run};

/// Each way; 50 ms there and back.
const DELAY: Duration = Duration::from_millis(25);

/// What an apply may wait for more often than its handshakes take.
const MOST: usize = 6;

/// How often the client spoke after it had heard the server, for each connection.
#[derive(Debug, Default)]
struct Turns {
    heard: AtomicBool,
    count: AtomicUsize,
}

/// A relay on loopback, and what it has counted.
struct Relay {
    addr: SocketAddr,
    connections: Arc<Mutex<Vec<Arc<Turns>>>>,
}

impl Relay {
    fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let connections = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&connections);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let server = TcpStream::connect(target).expect("the server listens");
                let turns = Arc::new(Turns::default());
                all.lock()
                    .expect("nobody panicked")
                    .push(Arc::clone(&turns));
                join(&client, &server, Way::Up, Arc::clone(&turns));
                join(&server, &client, Way::Down, turns);
            }
        });
        Self { addr, connections }
    }

    /// The turns of each connection since this was asked last.
    fn turns(&self) -> Vec<usize> {
        let mut connections = self.connections.lock().expect("nobody panicked");
        connections
            .drain(..)
            .map(|turns| turns.count.load(Ordering::SeqCst))
            .collect()
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Up,
    Down,
}

/// Carries bytes one way, each piece `DELAY` after it came.
fn join(from: &TcpStream, to: &TcpStream, way: Way, turns: Arc<Turns>) {
    let mut from = from.try_clone().expect("a socket");
    let mut to = to.try_clone().expect("a socket");
    to.set_nodelay(true).expect("a TCP socket");
    let (send, receive): (Sender<(Instant, Vec<u8>)>, Receiver<_>) = channel();
    let spoken = Arc::clone(&turns);
    thread::spawn(move || {
        let mut buffer = vec![0; 65536];
        while let Ok(size @ 1..) = from.read(&mut buffer) {
            if way == Way::Up && spoken.heard.swap(false, Ordering::SeqCst) {
                spoken.count.fetch_add(1, Ordering::SeqCst);
            }
            if send
                .send((Instant::now() + DELAY, buffer[..size].to_vec()))
                .is_err()
            {
                return;
            }
        }
    });
    thread::spawn(move || {
        for (due, bytes) in receive {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                return;
            }
            // Counted when it reaches the client, not when it left the server.
            if way == Way::Down {
                turns.heard.store(true, Ordering::SeqCst);
            }
        }
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
}

struct Host {
    scratch: Scratch,
    _server: Server,
    relay: Relay,
}

impl Host {
    fn start() -> Option<Self> {
        let scratch = Scratch::new();
        let server = Server::start(190, "")?;
        let target = format!("{}:{}", server.address, server.port);
        let relay = Relay::start(target.parse().expect("an address"));
        let port = relay.addr.port();
        for folder in ["etc", "proc", "sys/bus/pci/devices", "var/lib"] {
            std::fs::create_dir_all(scratch.path().join("root").join(folder)).expect("a folder");
        }
        let key = std::fs::read_to_string(server.at("host.pub")).expect("a key");
        let known = format!("[127.0.0.1]:{port} {key}");
        let known = scratch.write("home/.ssh/known_hosts", &known);
        scratch.write(
            "home/.ssh/config",
            &format!(
                "UserKnownHostsFile {}\nIdentitiesOnly yes\n",
                known.display()
            ),
        );
        scratch.write(
            "hosts.yml",
            &format!(
                "all:\n  hosts:\n    far: {{ansible_host: 127.0.0.1, ansible_port: {port}, ansible_user: {}, \
                 ansible_ssh_private_key_file: {}, deploy_root: {}}}\n",
                run("id", &["-un"]).trim(),
                server.at("id").display(),
                scratch.path().join("root").display(),
            ),
        );
        Some(Self {
            scratch,
            _server: server,
            relay,
        })
    }

    fn deploy(&self, words: &[&str]) -> Ended {
        let at = |name: &str| self.scratch.path().join(name).display().to_string();
        let mut args: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        args.extend([
            "-i".to_owned(),
            at("hosts.yml"),
            "-F".to_owned(),
            at("home/.ssh/config"),
        ]);
        self.scratch.deploy(&args)
    }
}

/// Ten files, and with `more` another task.
fn playbook(host: &Host, generation: u8, more: &str) -> String {
    let files: String = (0..10)
        .map(|n| {
            format!("    - copy: {{content: \"{generation} of {n}\\n\", dest: /etc/file{n}, mode: '0644'}}\n")
        })
        .collect();
    let path = host.scratch.write(
        "play.yml",
        &format!("- hosts: all\n  gather_facts: false\n  tasks:\n{files}{more}"),
    );
    path.display().to_string()
}

#[test]
fn an_apply_of_ten_files_waits_at_most_six_times_more_than_its_handshakes() {
    let Some(host) = Host::start() else {
        return;
    };
    // Whoever only looks waits for the handshake, and once for the answer.
    host.deploy(&["discover"]).expect(0);
    let [looking] = host.relay.turns()[..] else {
        panic!("one connection");
    };
    let handshake = looking - 1;

    for generation in 1..=2 {
        let play = playbook(&host, generation, "");
        host.deploy(&["run", &play, "--yes"])
            .expect(0)
            .says("changed=1");
        let [turns] = host.relay.turns()[..] else {
            panic!("one connection");
        };
        assert!(
            turns <= handshake + MOST,
            "{turns} turns, the handshake takes {handshake}"
        );
    }

    // On a busy machine one answer may come in two pieces, which counts as one turn more:
    // of three tries the best is taken.
    let play = playbook(&host, 2, "");
    let at_most = |more: usize, prepare: &dyn Fn()| {
        let mut seen = Vec::new();
        for _ in 0..3 {
            prepare();
            host.deploy(&["run", &play, "--yes"])
                .expect(0)
                .says("changed=0");
            let [turns] = host.relay.turns()[..] else {
                panic!("one connection");
            };
            if turns <= looking + more {
                return;
            }
            seen.push(turns);
        }
        panic!("{seen:?} turns, a look takes {looking}");
    };
    // Nothing to change, and the record of it is there: no more than a look.
    at_most(0, &|| {});
    // Without the record it is put there in one turn, once.
    at_most(1, &|| {
        let state = host.scratch.path().join("root/var/lib/deploy");
        for entry in std::fs::read_dir(state).expect("it is there").flatten() {
            if entry.file_name().to_string_lossy().starts_with("applied-") {
                std::fs::remove_file(entry.path()).expect("our file");
            }
        }
    });
    at_most(0, &|| {});

    // With a step that may cut the connection: confirmed through a second one.
    let play = playbook(&host, 3, "    - command: {cmd: 'true', undo: 'true'}\n");
    host.deploy(&["run", &play, "--yes"])
        .expect(0)
        .says("changed=1");
    let turns = host.relay.turns();
    assert_eq!(turns.len(), 2, "one connection to apply, one to confirm");
    let sum: usize = turns.iter().sum();
    assert!(
        sum <= 2 * handshake + MOST,
        "{turns:?} turns, a handshake takes {handshake}"
    );
}
