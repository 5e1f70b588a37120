//! A TCP relay that adds delay and counts round trips, for `tests/bench.sh`.
//!
//! Usage: `trips LISTEN TARGET DELAY_MS` (delay one way). For each connection that
//! ends it prints the number of times the client spoke after the server had
//! spoken last: each such turn is a round trip that the client waited for. The
//! TCP handshake is one more, which a relay cannot see.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

#[derive(Default)]
struct Turns {
    server_spoke_last: AtomicBool,
    count: AtomicUsize,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [listen, target, delay] = args.as_slice() else {
        return ExitCode::from(64);
    };
    let Ok(delay) = delay.parse().map(Duration::from_millis) else {
        return ExitCode::from(64);
    };
    let listener = TcpListener::bind(listen)
        .await
        .expect("the address is free");
    while let Ok((client, _)) = listener.accept().await {
        let target = target.clone();
        tokio::spawn(async move {
            let server = TcpStream::connect(&target)
                .await
                .expect("the target listens");
            client.set_nodelay(true).expect("a TCP socket");
            server.set_nodelay(true).expect("a TCP socket");
            let turns = Arc::new(Turns::default());
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            let up = relay(from_client, to_server, delay, true, turns.clone());
            let down = relay(from_server, to_client, delay, false, turns.clone());
            tokio::join!(up, down);
            // One line a connection on standard output is this program's result.
            let line = format!("{}\n", turns.count.load(Ordering::SeqCst));
            let mut out = tokio::io::stdout();
            let _ = out.write_all(line.as_bytes()).await;
            let _ = out.flush().await;
        });
    }
    ExitCode::SUCCESS
}

async fn relay(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    delay: Duration,
    upward: bool,
    turns: Arc<Turns>,
) {
    let (send, mut receive) = tokio::sync::mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let delivered = turns.clone();
    let reader = async move {
        let mut buffer = vec![0; 65536];
        while let Ok(size @ 1..) = from.read(&mut buffer).await {
            if upward && turns.server_spoke_last.swap(false, Ordering::SeqCst) {
                turns.count.fetch_add(1, Ordering::SeqCst);
            }
            let due = Instant::now() + delay;
            if send.send((due, buffer[..size].to_vec())).is_err() {
                return;
            }
        }
    };
    let writer = async move {
        while let Some((due, bytes)) = receive.recv().await {
            tokio::time::sleep_until(due).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
            // Counted when it reaches the client, not when it left the server: what
            // the client sent meanwhile did not wait for it.
            if !upward {
                delivered.server_spoke_last.store(true, Ordering::SeqCst);
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(reader, writer);
}
