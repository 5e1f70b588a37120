//! A real headless Chromium, driven over two pipes by the DevTools protocol, in a network
//! namespace that has no network. Knows nothing of what the pages show.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value as Json, json};

/// How long a page may take to do what it is waited for, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// How a page is looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    /// Width and height of the window, in CSS pixels.
    pub(crate) window: (u32, u32),
    pub(crate) dark: bool,
    pub(crate) scripts: bool,
}

impl Look {
    pub(crate) const DESK: Self = Self {
        window: (1400, 900),
        dark: false,
        scripts: true,
    };
    /// A small phone held upright.
    pub(crate) const PHONE: Self = Self {
        window: (390, 844),
        dark: false,
        scripts: true,
    };
}

/// The browser with one page open. Ends with the value.
pub(crate) struct Browser {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
    last_id: u64,
    session: String,
    events: Vec<Json>,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts Chromium. The tests' script installs it.
    pub(crate) fn start() -> Self {
        let profile = tempfile::tempdir().expect("a folder for the profile");
        // Its protocol speaks on the descriptors 3 and 4.
        let pipes = "exec 3<&0 4>&1 </dev/null >/dev/null 2>/dev/null; exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--net", "sh", "-c", pipes, "sh"]);
        // Ubuntu's package of this name is another one: CHROMIUM says where the browser is.
        command.arg(std::env::var_os("CHROMIUM").unwrap_or("chromium".into()));
        command.args([
            "--headless=new",
            "--remote-debugging-pipe",
            "--no-sandbox",
            "--no-first-run",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--force-device-scale-factor=1",
        ]);
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("unshare starts");
        let to = child.stdin.take();
        let from = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut browser = Self {
            child,
            to,
            from,
            last_id: 0,
            session: String::new(),
            events: Vec::new(),
            _profile: profile,
        };
        let target = browser.ask("Target.createTarget", json!({"url": "about:blank"}));
        let target = target["targetId"].as_str().expect("a target").to_owned();
        let attach = json!({"targetId": target, "flatten": true});
        let session = browser.ask("Target.attachToTarget", attach);
        browser.session = session["sessionId"].as_str().expect("an id").to_owned();
        for domain in ["Page", "Runtime", "Log", "Network", "DOM"] {
            browser.ask(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// Opens a file and waits until it is loaded.
    pub(crate) fn open(&mut self, file: &Path, look: Look) {
        let (width, height) = look.window;
        let mobile = width < 600;
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}),
        );
        let scheme = if look.dark { "dark" } else { "light" };
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.ask("Emulation.setEmulatedMedia", json!({"features": features}));
        let off = json!({"value": !look.scripts});
        self.ask("Emulation.setScriptExecutionDisabled", off);
        self.events.clear();
        let url = format!("file://{}", file.display());
        self.ask("Page.navigate", json!({"url": url}));
        let end = Instant::now() + PATIENCE;
        while !self.saw("Page.loadEventFired") {
            assert!(
                Instant::now() < end,
                "{url} is not loaded: {:?}",
                self.events
            );
            self.next();
        }
    }

    /// What the page asked for beside itself, and what its console said: both have to be
    /// nothing.
    pub(crate) fn complaints(&mut self) -> Vec<String> {
        // Whatever was under way is told before the answer to a question put after it.
        self.ask("Runtime.evaluate", json!({"expression": "0"}));
        let told = |event: &Json| match event["method"].as_str().unwrap_or_default() {
            "Network.requestWillBeSent" => {
                let url = event["params"]["request"]["url"].as_str().unwrap_or("?");
                let kind = event["params"]["type"].as_str().unwrap_or("?");
                let its_own = url.starts_with("data:") || kind == "Document";
                (!its_own).then(|| format!("asks for {url}"))
            }
            "Runtime.consoleAPICalled" | "Runtime.exceptionThrown" | "Log.entryAdded" => {
                Some(event["params"].to_string())
            }
            _ => None,
        };
        self.events.iter().filter_map(told).collect()
    }

    /// The value of an expression. Works also where the page's own scripts are off.
    #[track_caller]
    pub(crate) fn value(&mut self, expression: &str) -> Json {
        let question = json!({"expression": expression, "returnByValue": true});
        let answer = self.ask("Runtime.evaluate", question);
        let thrown = &answer["exceptionDetails"];
        assert!(thrown.is_null(), "`{expression}`: {thrown}");
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    #[track_caller]
    pub(crate) fn until(&mut self, expression: &str) {
        let end = Instant::now() + PATIENCE;
        while self.value(expression) != json!(true) {
            assert!(Instant::now() < end, "`{expression}` never came true");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Presses a key that has a name (`Tab`, `Enter`, `ArrowDown`, ` `) or types a letter.
    pub(crate) fn press(&mut self, key: &str) {
        let (code, number, text) = match key {
            "Tab" => ("Tab", 9, ""),
            "Enter" => ("Enter", 13, "\r"),
            "ArrowDown" => ("ArrowDown", 40, ""),
            "ArrowRight" => ("ArrowRight", 39, ""),
            " " => ("Space", 32, " "),
            letter => ("", 0, letter),
        };
        let mut event = json!({"key": key, "code": code, "windowsVirtualKeyCode": number});
        event["type"] = json!(if text.is_empty() {
            "rawKeyDown"
        } else {
            "keyDown"
        });
        if !text.is_empty() {
            event["text"] = json!(text);
        }
        self.ask("Input.dispatchKeyEvent", event.clone());
        event["type"] = json!("keyUp");
        self.ask("Input.dispatchKeyEvent", event);
    }

    /// A picture of the page from its top, as PNG: at most `height` CSS pixels of it.
    pub(crate) fn picture(&mut self, height: u32) -> Vec<u8> {
        let size = self.value("[innerWidth, document.documentElement.scrollHeight]");
        let height = size[1].as_u64().expect("a height").min(height.into());
        let clip = json!({"x": 0, "y": 0, "width": size[0], "height": height, "scale": 1});
        let question = json!({"format": "png", "captureBeyondViewport": true, "clip": clip});
        let answer = self.ask("Page.captureScreenshot", question);
        let data = answer["data"].as_str().expect("a picture");
        STANDARD.decode(data).expect("base64")
    }

    fn saw(&self, method: &str) -> bool {
        self.events.iter().any(|event| event["method"] == method)
    }

    #[track_caller]
    fn ask(&mut self, method: &str, params: Json) -> Json {
        self.last_id += 1;
        let id = self.last_id;
        let mut message = json!({"id": id, "method": method, "params": params});
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        let to = self.to.as_mut().expect("a pipe");
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        to.write_all(&bytes)
            .expect("chromium listens (is it installed?)");
        loop {
            let answer = self.next();
            if answer["id"] != json!(id) {
                continue;
            }
            assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
            return answer["result"].clone();
        }
    }

    fn next(&mut self) -> Json {
        let mut bytes = Vec::new();
        self.from
            .read_until(0, &mut bytes)
            .expect("chromium answers");
        assert!(!bytes.is_empty(), "chromium ended (is it installed?)");
        bytes.pop();
        let message: Json = serde_json::from_slice(&bytes).expect("json");
        if message["method"].is_string() {
            self.events.push(message.clone());
        }
        message
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It ends when nobody holds its pipe any more.
        drop(self.to.take());
        let end = Instant::now() + Duration::from_secs(10);
        while Instant::now() < end {
            if let Ok(Some(_)) = self.child.try_wait() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
