//! Serves the cluster on a port of the loopback interface, a thread a connection.

use std::fs::File;
use std::io::{self, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use serde_json::{Value as Json, json};

use super::api::{self, Answer, Selection};
use super::cluster::{Cluster, text};
use super::http::{self, Request};
use super::{exec, kinds, operator};
use crate::sim::fault::faults;
use crate::sim::machine::Host;

type Fill = dyn Fn(&mut Cluster) + Send + Sync;

/// Begins to serve; `fill` makes the cluster on first use.
pub(super) fn start(
    host: Host,
    fill: impl Fn(&mut Cluster) + Send + Sync + 'static,
) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    let fill: Arc<Fill> = Arc::new(fill);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (host, fill) = (host.clone(), Arc::clone(&fill));
            thread::spawn(move || {
                // A client that goes away is no failure.
                let _ = serve(&host, &*fill, stream);
            });
        }
    });
    Ok(address)
}

fn serve(host: &Host, fill: &Fill, stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut to = stream.try_clone()?;
    let mut from = BufReader::new(stream);
    while let Some(request) = http::read(&mut from)? {
        if exec::is_asked(&request) {
            let done = with_cluster(host, fill, true, |cluster| exec::program(cluster, &request))?;
            return exec::answer(&mut to, &request, done);
        }
        // Clients ask what there is before each of their requests.
        let passes = kinds::discovery(&request.path).is_none();
        match with_cluster(host, fill, passes, |cluster| api::answer(cluster, &request))? {
            Answer::Json(code, body) => {
                http::answer(
                    &mut to,
                    code,
                    "application/json",
                    body.to_string().as_bytes(),
                )?;
            }
            Answer::Text(text) => http::answer(&mut to, 200, "text/plain", text.as_bytes())?,
            Answer::Watch(selection) => return watch(host, fill, &request, &selection, &mut to),
        }
    }
    Ok(())
}

/// Does something with the cluster, after a moment passed in it where time counts.
fn with_cluster<T>(
    host: &Host,
    fill: &Fill,
    passes: bool,
    act: impl FnOnce(&mut Cluster) -> T,
) -> io::Result<T> {
    let lock = File::options()
        .create(true)
        .append(true)
        .open(host.private("kubernetes.lock"))?;
    flock(&lock, FlockOperation::LockExclusive)?;
    let mut cluster = Cluster::load(host)?;
    if cluster.is_empty() {
        fill(&mut cluster);
    }
    if passes {
        operator::tick(&mut cluster, faults(host).gpu_operator);
    }
    let result = act(&mut cluster);
    cluster.save(host)?;
    Ok(result)
}

/// Sends the objects that are there, and then each as it changes, until the client has enough
/// of it.
fn watch(
    host: &Host,
    fill: &Fill,
    request: &Request,
    selection: &Selection,
    to: &mut TcpStream,
) -> io::Result<()> {
    http::begin(to)?;
    let since = request.query("resourceVersion").unwrap_or("0");
    let since: u64 = since.parse().unwrap_or(0);
    let seconds = request.query("timeoutSeconds").unwrap_or("3600");
    let until = Instant::now() + Duration::from_secs(seconds.parse().unwrap_or(3600));
    let version = |object: &Json| text(object, "/metadata/resourceVersion").parse::<u64>();
    let mut known: Vec<Json> = Vec::new();
    let mut first = true;
    while Instant::now() < until {
        let now: Vec<Json> = with_cluster(host, fill, true, |cluster| {
            selection.of(cluster).into_iter().cloned().collect()
        })?;
        let name = |object: &Json| object["metadata"]["uid"].clone();
        for object in &now {
            let before = known.iter().find(|other| name(other) == name(object));
            let kind = match before {
                Some(before) if before == object => continue,
                Some(_) => "MODIFIED",
                // What the client has seen already.
                None if first && since > 0 && version(object).unwrap_or(0) <= since => continue,
                None if first && since > 0 => "MODIFIED",
                None => "ADDED",
            };
            send(to, kind, object)?;
        }
        let gone = |object: &&Json| !now.iter().any(|other| name(other) == name(object));
        for object in known.iter().filter(gone) {
            send(to, "DELETED", object)?;
        }
        known = now;
        first = false;
        thread::sleep(Duration::from_millis(50));
    }
    http::piece(to, "")
}

fn send(to: &mut TcpStream, kind: &str, object: &Json) -> io::Result<()> {
    let event = json!({ "type": kind, "object": object });
    http::piece(to, &format!("{event}\n"))
}
