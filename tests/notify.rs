//! `--notify`, by whole commands: a server on loopback and a program are told what a run found,
//! once, and nothing that goes wrong with them is anything but a warning.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value as Json, json};

use crate::harness::{Ended, Scratch, below};

/// A web server that notes what it is sent, for as long as the test runs.
struct Server {
    port: u16,
    got: Arc<Mutex<Vec<(String, String)>>>,
}

impl Server {
    /// One that answers each request so; with nothing it never answers.
    fn start(answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let got: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
        let notes = Arc::clone(&got);
        std::thread::spawn(move || {
            let mut open: Vec<TcpStream> = Vec::new();
            for stream in listener.incoming().map_while(Result::ok) {
                let request = request(&stream);
                notes.lock().expect("no panic").push(request);
                if answer.is_empty() {
                    open.push(stream);
                    continue;
                }
                let mut stream = stream;
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        Self { port, got }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hook/s3cret-path", self.port)
    }

    /// The head and body of each request since the last look.
    fn got(&self) -> Vec<(String, String)> {
        std::mem::take(&mut *self.got.lock().expect("no panic"))
    }
}

fn request(stream: &TcpStream) -> (String, String) {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    loop {
        let mut line = String::new();
        let read = reader.read_line(&mut line).unwrap_or(0);
        if read == 0 || line == "\r\n" {
            break;
        }
        head += &line.to_lowercase();
    }
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length
        .and_then(|length| length.trim().parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    let _ = reader.read_exact(&mut body);
    (head, String::from_utf8_lossy(&body).into_owned())
}

const OK: &str = "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";

/// Two hosts to which a file was applied.
struct Fleet {
    scratch: Scratch,
}

impl Fleet {
    fn new() -> Self {
        let fleet = Self {
            scratch: Scratch::new(),
        };
        fleet.scratch.write(
            "hosts.yml",
            "all:\n  hosts: {n1: {}, n2: {}}\n  vars: {ansible_connection: sim, sim: {}}\n",
        );
        fleet.scratch.write(
            "site.yml",
            "- hosts: all\n  tasks:\n    - {name: Say it, copy: {content: \"x\\n\", dest: /etc/word, mode: '0644'}}\n",
        );
        fleet.deploy("run", &["--yes"]).expect(0);
        fleet
    }

    fn deploy(&self, verb: &str, more: &[&str]) -> Ended {
        let path = |name: &str| self.scratch.path().join(name).display().to_string();
        let (site, hosts) = (path("site.yml"), path("hosts.yml"));
        let words = [&[verb, site.as_str(), "-i", &hosts], more].concat();
        self.scratch.deploy(&words)
    }

    /// A look at drift that tells others.
    fn look(&self, code: i32, more: &[&str]) -> Ended {
        let file = self.scratch.path().join("notify.yml").display().to_string();
        let ended = self.deploy("drift", &[&["--notify", file.as_str()], more].concat());
        ended.expect(code)
    }

    fn edit(&self, host: &str) {
        let sim = self.scratch.path().join("state/deploy/sim");
        fs::write(below(&sim, &format!("{host}/etc/word")), "y\n").expect("ours");
    }
}

/// Kinds and addresses of the news in a message.
fn news(message: &str) -> Vec<String> {
    let message: Json = serde_json::from_str(message).expect("JSON");
    let news = message["news"].as_array().expect("news").iter();
    let word = |item: &Json, key: &str| item[key].as_str().expect("a text").to_owned();
    news.map(|item| format!("{} {}", word(item, "kind"), word(item, "address")))
        .collect()
}

#[test]
fn news_is_told_once_until_it_is_over() {
    let fleet = Fleet::new();
    let server = Server::start(OK);
    fleet.scratch.write("token", "s3cret-token\n");
    let got = fleet.scratch.path().join("got");
    let text = format!(
        "notifications:\n- name: chat\n  webhook: {{url: '{}', headers: {{X-Room: gpu}}, secret: {{file: token}}}}\n\
         - name: file\n  on: [drifted]\n  template: words.j2\n  command: [sh, -c, 'cat >>\"$1\"', sh, '{}']\n",
        server.url(),
        got.display()
    );
    fleet.scratch.write("notify.yml", &text);
    fleet.scratch.write(
        "words.j2",
        "{% for item in news %}{{ item.kind }} {{ item.host }}: {{ item.text }} ({{ verb }}, exit {{ exit }})\n{% endfor %}",
    );
    fleet.look(0, &[]);
    assert!(server.got().is_empty(), "there is no news");
    fleet.edit("n1");
    let said = fleet.look(2, &[]);
    let requests = server.got();
    assert_eq!(requests.len(), 1);
    let (head, body) = &requests[0];
    assert!(
        head.starts_with("post /hook/s3cret-path http/1.1"),
        "{head}"
    );
    for header in [
        "authorization: bearer s3cret-token",
        "x-room: gpu",
        "content-type: application/json",
        "user-agent: deploy/",
    ] {
        assert!(head.contains(header), "{head}");
    }
    let told = news(body);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("drifted n1/"), "{told:?}");
    let message: Json = serde_json::from_str(body).expect("JSON");
    assert_eq!(
        (&message["exit"], &message["verb"]),
        (&json!(2), &json!("drift"))
    );
    let words = message["text"].as_str().expect("a text");
    assert!(words.contains(": 1 drifted\n- drifted: n1/"), "{words}");
    let first = fs::read_to_string(&got).expect("the program was told");
    assert_eq!(first, "drifted n1: change /etc/word (drift, exit 2)\n");

    // The same again is no news; a second thing is, alone.
    fleet.look(2, &[]);
    assert!(server.got().is_empty());
    fleet.edit("n2");
    fleet.look(2, &[]);
    let told: Vec<String> = server
        .got()
        .iter()
        .flat_map(|(_, body)| news(body))
        .collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("drifted n2/"), "{told:?}");
    fleet.look(0, &["--remediate", "--yes"]);
    let told: Vec<String> = server
        .got()
        .iter()
        .flat_map(|(_, body)| news(body))
        .collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told.iter().all(|news| news.starts_with("recovered n")),
        "{told:?}"
    );
    let lines = fs::read_to_string(&got).expect("it").lines().count();
    assert_eq!(lines, 2, "who did not ask for `recovered` is not told");

    // Neither what is printed nor what is kept has the secret.
    assert!(!said.all().contains("s3cret"), "{}", said.all());
    for (path, kept) in crate::harness::tree(&fleet.scratch.history()) {
        let text = format!("{kept:?}");
        let bytes: String = text.split("content: ").skip(1).collect();
        let secret = format!("{:?}", b"s3cret").replace(['[', ']'], "");
        assert!(!bytes.contains(&secret), "{}", path.display());
    }
}

#[test]
fn what_does_not_get_there_is_a_warning_and_is_told_later() {
    let fleet = Fleet::new();
    fleet.edit("n1");
    let refuses =
        Server::start("HTTP/1.1 500 No\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    let moves = Server::start(
        "HTTP/1.1 302 Away\r\nLocation: http://127.0.0.1:1/\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    );
    let hangs = Server::start("");
    let text = format!(
        "notifications:\n- {{name: refuses, webhook: {{url: '{}'}}}}\n- {{name: moves, webhook: {{url: '{}'}}}}\n\
         - {{name: hangs, timeout: 1, webhook: {{url: '{}'}}}}\n\
         - {{name: nobody, webhook: {{url: 'http://127.0.0.1:1/s3cret'}}}}\n- {{name: lacks, webhook: {{url_file: s3cret.url}}}}\n\
         - {{name: fails, command: ['false']}}\n- {{name: late, timeout: 1, command: [sleep, '600']}}\n",
        refuses.url(),
        moves.url(),
        hangs.url()
    );
    fleet.scratch.write("notify.yml", &text);
    let said = fleet.look(2, &[]);
    for (name, why) in [
        ("refuses", "the answer was 500"),
        ("moves", "the answer was 302"),
        ("hangs", "it took too long"),
        ("nobody", ""),
        ("lacks", "cannot be read"),
        ("fails", "ended with exit status: 1"),
        ("late", "took longer than 1s"),
    ] {
        let wanted = format!("the notification `{name}` did not get there: ");
        let line = said.err.lines().find(|line| line.contains(&wanted));
        assert!(
            line.is_some_and(|line| line.contains(why)),
            "{name}: {}",
            said.all()
        );
    }
    assert!(!said.err.contains("s3cret-path"), "{}", said.err);
    let summary = said.out.lines().last().expect("sums");
    assert!(summary.starts_with("hosts=2 ok=1 changed=1"), "{summary}");

    // The same name, which now is heard.
    let server = Server::start(OK);
    let text = format!(
        "notifications: [{{name: refuses, webhook: {{url: '{}'}}}}]\n",
        server.url()
    );
    fleet.scratch.write("notify.yml", &text);
    fleet.look(2, &[]);
    assert_eq!(server.got().len(), 1);
}

#[test]
fn a_run_that_is_refused_is_news_and_a_wrong_file_refuses_a_run() {
    let fleet = Fleet::new();
    let server = Server::start(OK);
    let text = format!(
        "notifications: [{{name: chat, webhook: {{url: '{}'}}}}]\n",
        server.url()
    );
    fleet.scratch.write("notify.yml", &text);
    fleet.look(1, &["-l", "nowhere"]);
    let requests = server.got();
    assert_eq!(requests.len(), 1);
    assert_eq!(news(&requests[0].1), ["failed "]);

    fleet.scratch.write(
        "notify.yml",
        "notifications:\n  - name: chat\n    on: [drifting]\n    webhok: {}\n",
    );
    let said = fleet.look(1, &[]);
    for wrong in ["notify.yml:3:", "there is no news `drifting`", "webhok"] {
        assert!(said.err.contains(wrong), "{wrong}: {}", said.all());
    }
    assert!(!said.all().contains("hosts=2"), "no host was looked at");
    // A secret that stands where it should not is not shown with what is wrong.
    let text =
        "notifications:\n- {name: a, webhook: {url: 'https://x.example', secret: s3cret-token}}\n";
    fleet.scratch.write("notify.yml", text);
    let said = fleet
        .look(1, &[])
        .says("notify.yml:2: the `secret` of a webhook does not stand here");
    assert!(!said.all().contains("s3cret-token"), "{}", said.all());
    fs::remove_file(fleet.scratch.path().join("notify.yml")).expect("ours");
    fleet.look(1, &[]).says("of `--notify`, cannot be read");
}
