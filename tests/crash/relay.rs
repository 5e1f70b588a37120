//! The network between controller and host: a relay on loopback that can be cut,
//! and that can refuse who comes.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// One host's line.
#[derive(Debug)]
pub(super) struct Relay {
    /// Where controllers connect to.
    pub(super) addr: SocketAddr,
    line: Arc<Line>,
}

#[derive(Debug)]
struct Line {
    up: AtomicBool,
    streams: Mutex<Vec<TcpStream>>,
}

impl Relay {
    /// A relay to `target` on a free port.
    pub(super) fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let line = Arc::new(Line {
            up: AtomicBool::new(true),
            streams: Mutex::default(),
        });
        let shared = Arc::clone(&line);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if shared.up.load(Ordering::SeqCst)
                    && let Ok(server) = TcpStream::connect(target)
                {
                    shared.join(client, server);
                }
            }
        });
        Self { addr, line }
    }

    /// Ends every connection; new ones are let through.
    pub(super) fn cut(&self) {
        for stream in self.line.streams().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Whether new connections are let through.
    pub(super) fn let_through(&self, up: bool) {
        self.line.up.store(up, Ordering::SeqCst);
    }
}

impl Line {
    fn streams(&self) -> std::sync::MutexGuard<'_, Vec<TcpStream>> {
        self.streams.lock().expect("nobody panics with it")
    }

    fn join(self: &Arc<Self>, client: TcpStream, server: TcpStream) {
        for stream in [&client, &server] {
            let _ = stream.set_nodelay(true);
        }
        let pairs = [
            (client.try_clone(), server.try_clone()),
            (server.try_clone(), client.try_clone()),
        ];
        self.streams().extend([client, server]);
        for (from, to) in pairs {
            let (Ok(mut from), Ok(mut to)) = (from, to) else {
                continue;
            };
            thread::spawn(move || {
                let mut buffer = vec![0; 32 * 1024];
                while let Ok(size @ 1..) = from.read(&mut buffer) {
                    if to.write_all(&buffer[..size]).is_err() {
                        break;
                    }
                }
                let _ = to.shutdown(Shutdown::Write);
            });
        }
    }
}
