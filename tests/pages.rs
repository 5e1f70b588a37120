//! The pages for a browser, opened in a real one: with scripts and without, light and dark,
//! on a desk and on a phone, by keyboard alone, and with many hosts. The pictures that are
//! taken stand in `target/test-pages` for somebody to look at.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::browser::{Browser, Look};
use crate::harness::Scratch;

const DEMO: &str = "inventories/demo";

/// Writes a picture to where a person finds it.
fn keep(name: &str, picture: &[u8]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-pages");
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join(name), picture).expect("a picture");
}

/// The page of a plan for an inventory.
fn plan_page(scratch: &Scratch, inventory: &str) -> PathBuf {
    let plan = scratch.path().join("plan.bin").display().to_string();
    scratch
        .deploy(&[
            "gpu", "-i", inventory, "--check", "--out", &plan, "-f", "4", "-T", "60",
        ])
        .expect(2);
    let shown = scratch
        .deploy(&["plan", "show", &plan, "--output", "html"])
        .expect(0);
    scratch.write("plan.html", &shown.out)
}

/// That nothing is wider than the window, so that nobody has to scroll sideways.
#[track_caller]
fn fits(browser: &mut Browser) {
    let wide = browser.value(
        "[...document.querySelectorAll('body *')].filter(e => !e.closest('.diff') && \
         e.getBoundingClientRect().right > innerWidth + 0.5).map(e => e.outerHTML.slice(0, 120))",
    );
    assert_eq!(wide, json!([]), "wider than the window");
    let scrolls = "document.documentElement.scrollWidth <= innerWidth";
    assert_eq!(browser.value(scrolls), json!(true), "the page scrolls");
}

/// The lowest contrast between any text and what is behind it, by the formula of WCAG 2.
const LOWEST_CONTRAST: &str = r#"(() => {
  const parse = c => { const m = c.match(/[\d.]+/g).map(Number); return m.length < 4 ? [...m, 1] : m; };
  const lum = ([r, g, b]) => { const f = v => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
    return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b); };
  let lowest = [99, ''];
  for (const e of document.querySelectorAll('body *')) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())) continue;
    if (!e.checkVisibility() || e.closest('script')) continue;
    let behind = e, paper = [0, 0, 0, 0];
    while (behind && paper[3] === 0) { paper = parse(getComputedStyle(behind).backgroundColor); behind = behind.parentElement; }
    if (paper[3] === 0) paper = [255, 255, 255, 1];
    const [a, b] = [lum(parse(getComputedStyle(e).color)), lum(paper)];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < lowest[0]) lowest = [ratio, e.outerHTML.slice(0, 120)];
  }
  return lowest;
})()"#;

/// That all text can be read: 4.5 to 1 is what WCAG 2 asks for at level AA.
#[track_caller]
fn readable(browser: &mut Browser) {
    let lowest = browser.value(LOWEST_CONTRAST);
    let ratio = lowest[0].as_f64().expect("a number");
    assert!((4.5..50.0).contains(&ratio), "contrast {lowest}");
}

#[test]
fn the_page_of_a_plan_works_with_scripts_and_without_and_asks_for_nothing() {
    let scratch = Scratch::new();
    let page = plan_page(&scratch, DEMO);
    let mut browser = Browser::start();
    let visible = "[...document.querySelectorAll('.host')].filter(e => e.checkVisibility()).length";
    for scripts in [true, false] {
        for dark in [true, false] {
            for look in [Look::DESK, Look::PHONE] {
                let look = Look {
                    dark,
                    scripts,
                    ..look
                };
                browser.open(&page, look);
                assert_eq!(browser.complaints(), Vec::<String>::new(), "{look:?}");
                fits(&mut browser);
                readable(&mut browser);
                assert_eq!(browser.value(visible), json!(7), "all hosts are shown");
                let form = browser.value("document.getElementById('filter').checkVisibility()");
                assert_eq!(
                    form,
                    json!(scripts),
                    "a filter that does nothing is not shown"
                );
                let name = format!("plan-{}-{dark}-{scripts}.png", look.window.0);
                keep(&name, &browser.picture(6000));
            }
        }
    }
}

#[test]
fn the_page_of_a_plan_is_used_by_keyboard_alone() {
    let scratch = Scratch::new();
    let page = plan_page(&scratch, DEMO);
    let mut browser = Browser::start();
    browser.open(&page, Look::DESK);
    let at = "document.activeElement.tagName + ' ' + (document.activeElement.name || document.activeElement.className)";

    browser.press("Tab");
    assert_eq!(browser.value(at), json!("A skip"));
    let shown = browser.value("document.activeElement.getBoundingClientRect().left >= 0");
    assert_eq!(
        shown,
        json!(true),
        "the way past the head is shown when it is reached"
    );
    browser.press("Tab");
    assert_eq!(browser.value(at), json!("INPUT host"));
    for letter in ["h", "1", "0", "0"] {
        browser.press(letter);
    }
    browser.until(
        "[...document.querySelectorAll('.host')].filter(e => e.checkVisibility()).length === 1",
    );
    let told = browser.value("document.querySelector('#filter output').textContent");
    assert_eq!(told, json!("1 of 7 hosts"));
    browser.press("Tab");
    assert_eq!(browser.value(at), json!("SELECT state"));
    browser.press("Tab");
    assert_eq!(browser.value(at), json!("SELECT card"));

    // What is folded opens by a key, and a wide text inside it is reached.
    browser.press("Tab");
    assert_eq!(
        browser.value("document.activeElement.tagName"),
        json!("SUMMARY")
    );
    let outline = browser.value("getComputedStyle(document.activeElement).outlineStyle");
    assert_eq!(outline, json!("solid"), "where one is can be seen");
    browser.press("Enter");
    browser.until("document.activeElement.parentElement.open");
    browser.press("Tab");
    assert_eq!(browser.value(at), json!("PRE diff"));
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn the_page_of_two_hundred_hosts_can_be_read() {
    let scratch = Scratch::new();
    let products = [
        "H100-80GB",
        "A100-40GB",
        "A30-24GB",
        "L40S",
        "RTX-PRO-6000-96GB",
    ];
    let mut hosts = String::from(
        "all:\n  vars: {ansible_connection: sim, containers_gpu_slicing: {enabled: true, strategy: auto}}\n  hosts:\n",
    );
    for n in 0..200 {
        let product = products[n % products.len()];
        let count = [2, 1, 4, 1][n / products.len() % 4];
        hosts += &format!(
            "    rack{:02}-gpu{:02}.example.net: {{sim: {{gpus: [{{product: {product}, count: {count}}}]}}}}\n",
            n / 10,
            n % 10
        );
    }
    let inventory = scratch.write("inv/hosts.yml", &hosts).display().to_string();
    let page = plan_page(&scratch, &inventory);
    let mut browser = Browser::start();
    for (look, name) in [(Look::DESK, "desk"), (Look::PHONE, "phone")] {
        browser.open(&page, look);
        assert_eq!(browser.complaints(), Vec::<String>::new());
        fits(&mut browser);
        readable(&mut browser);
        let hosts = browser.value("document.querySelectorAll('.host').length");
        assert_eq!(hosts, json!(200));
        let cut = browser.value("[...document.querySelectorAll('.host h3, .slice')].filter(e => e.scrollWidth > e.clientWidth + 1 && e.checkVisibility()).map(e => e.outerHTML).slice(0, 3)");
        assert_eq!(cut, json!([]), "names that are cut off");
        let small = browser.value("Math.min(...[...document.querySelectorAll('.fleet *')].map(e => parseFloat(getComputedStyle(e).fontSize)))");
        assert!(small.as_f64().expect("a size") >= 12.0, "{small}");
        keep(&format!("plan-200-{name}.png"), &browser.picture(6000));
    }
}

/// A history of 200 hosts: a look at drift each six hours for three weeks.
fn long_history(scratch: &Scratch) -> PathBuf {
    let folder = scratch.path().join("long");
    let now = jiff::Timestamp::now();
    for run in 0..84_i64 {
        let at = now - jiff::SignedDuration::from_hours(6 * (84 - run));
        let id = format!("{}-abc123", at.strftime("%Y%m%dT%H%M%SZ"));
        let own = folder.join(&id);
        fs::create_dir_all(&own).expect("a folder");
        let mut lines = String::new();
        let mut open = serde_json::Map::new();
        for n in 0..200_i64 {
            let host = format!("rack{:02}-gpu{:02}.example.net", n / 10, n % 10);
            let drifted = n % 17 == 3 && run > 60 || (n + run) % 61 == 0;
            let outcome = match (drifted, (n * 7 + run) % 97) {
                (_, 0) => "unreachable",
                (true, _) => "changed",
                (false, _) => "ok",
            };
            let slice = |profile: &str, start: u32, size: u32| json!({"placement": {"start": start, "size": size}, "profile": profile, "compute": [profile]});
            let wanted = json!([
                slice("3g.40gb", 0, 4),
                slice("2g.20gb", 4, 2),
                slice("1g.10gb", 6, 1)
            ]);
            let found = match drifted {
                true => json!([slice("3g.40gb", 0, 4), slice("1g.10gb", 6, 1)]),
                false => wanted.clone(),
            };
            for card in 0..=n % 2 {
                let gpu = format!("GPU {card} (0000:{card}7:00.0, NVIDIA H100 80GB HBM3)");
                let line = json!({"type": "gpu_slices", "version": 1, "host": host, "gpu": gpu, "model": "H100-80GB",
                    "state": "3 MIG instances", "technology": "mig", "differs": drifted, "grid": 8, "slices": found, "counts": []});
                lines += &format!("{line}\n");
                if drifted {
                    let address = format!("{host}/layout:{card}");
                    let change = json!({"kind": "layout", "subject": gpu, "grid": 8, "before": found, "after": wanted});
                    let line = json!({"type": "drift", "version": 1, "host": host, "address": address, "step": "layout", "status": "drifted",
                        "title": "create 1 MIG instance on <script>alert(1)</script>", "class": "disruptive", "last_run": null, "to_applied": change,
                        "to_wanted": null, "lines": [], "who": [], "mended": 0, "held": null, "ignored": null});
                    lines += &format!("{line}\n");
                    open.insert(
                        address,
                        json!({"since": at, "status": "drifted", "title": line["title"]}),
                    );
                }
            }
            let mut end =
                json!({"type": "host_end", "version": 1, "host": host, "outcome": outcome});
            if outcome == "unreachable" {
                end["problem"] = json!({"reason": "down", "message": "<b onclick=x>connection refused</b>", "hint": null});
            }
            lines += &format!("{end}\n");
        }
        let sums = json!({"type": "summary", "version": 1, "exit": 2});
        fs::write(own.join("events.jsonl"), format!("{lines}{sums}\n")).expect("a file");
        let entry = json!({"format": 1, "id": id, "tool": "1.0", "who": "deploy", "from": "controller", "started": at,
            "asked": {"verb": "drift", "inventory": ["/srv/fleet/hosts.yml"]}, "every": 21600,
            "ended": {"at": at + jiff::SignedDuration::from_secs(9), "summary": sums, "open": open}});
        fs::write(own.join("run.json"), entry.to_string()).expect("a file");
    }
    folder
}

#[test]
fn the_fleet_over_time_can_be_read_everywhere() {
    let scratch = Scratch::new();
    let history = long_history(&scratch);
    let page = scratch.path().join("fleet.html");
    let words = ["report", "--html", "--history"]
        .map(str::to_owned)
        .to_vec();
    let more = [
        history.display().to_string(),
        "--out".to_owned(),
        page.display().to_string(),
    ];
    scratch.deploy(&[words, more.to_vec()].concat()).expect(0);
    let mut browser = Browser::start();
    for scripts in [true, false] {
        for dark in [true, false] {
            for look in [Look::DESK, Look::PHONE] {
                let look = Look {
                    dark,
                    scripts,
                    ..look
                };
                browser.open(&page, look);
                assert_eq!(browser.complaints(), Vec::<String>::new(), "{look:?}");
                fits(&mut browser);
                readable(&mut browser);
                let shown = browser.value("[...document.querySelectorAll('.host')].filter(e => e.checkVisibility()).length");
                assert_eq!(shown, json!(200), "all hosts are shown");
                let cut = browser.value("[...document.querySelectorAll('.host h3, .slice')].filter(e => e.scrollWidth > e.clientWidth + 1 && e.checkVisibility()).map(e => e.outerHTML).slice(0, 3)");
                assert_eq!(cut, json!([]), "names that are cut off");
                keep(
                    &format!("fleet-{}-{dark}-{scripts}.png", look.window.0),
                    &browser.picture(3000),
                );
            }
        }
    }
    // Nothing that a host or a file says is more than text.
    assert_eq!(
        browser.value("document.querySelectorAll('script').length"),
        json!(1)
    );
    assert_eq!(
        browser.value("document.querySelectorAll('[onclick]').length"),
        json!(0)
    );
    let text = browser.value("document.body.textContent.includes('<script>alert(1)</script>')");
    assert_eq!(text, json!(true));

    browser.open(&page, Look::DESK);
    browser.press("Tab");
    browser.press("Tab");
    for letter in ["0", "3"] {
        browser.press(letter);
    }
    browser.until(
        "[...document.querySelectorAll('.host')].filter(e => e.checkVisibility()).length < 200",
    );
    for _ in 0..3 {
        browser.press("Tab");
    }
    assert_eq!(
        browser.value("document.activeElement.tagName"),
        json!("SUMMARY")
    );
    browser.press("Enter");
    browser.until("document.activeElement.parentElement.open");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}
