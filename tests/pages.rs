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

/// Names whose box is too narrow for them.
const CUT_OFF: &str = "[...document.querySelectorAll('.host h3, .slice')].filter(e => \
    e.scrollWidth > e.clientWidth + 1 && e.checkVisibility()).map(e => e.outerHTML).slice(0, 3)";

/// The smallest letters of the fleet, in CSS pixels.
const SMALLEST: &str = "Math.min(...[...document.querySelectorAll('.fleet *')]\
    .map(e => parseFloat(getComputedStyle(e).fontSize)))";

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

/// The page of what the history of this scratch folder tells.
fn fleet_page(scratch: &Scratch) -> PathBuf {
    let page = scratch.path().join("fleet.html");
    let path = page.display().to_string();
    scratch
        .deploy(&["report", "--html", "--out", &path])
        .expect(0);
    page
}

/// Opens a page in all ways and looks at what is the same in each.
fn in_all_ways(page: &Path, name: &str) {
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
                browser.open(page, look);
                assert_eq!(browser.complaints(), Vec::<String>::new(), "{look:?}");
                fits(&mut browser);
                readable(&mut browser);
                assert_eq!(browser.value(visible), json!(7), "all hosts are shown");
                let form = browser.value("document.getElementById('filter').checkVisibility()");
                assert_eq!(form, json!(scripts), "a filter that does nothing is hidden");
                let light = if dark { "dark" } else { "light" };
                let with = if scripts { "scripts" } else { "no-scripts" };
                let name = format!("{name}-{}-{light}-{with}.png", look.window.0);
                keep(&name, &browser.picture(6000));
            }
        }
    }
}

#[test]
fn the_fleet_view_works_with_scripts_and_without_and_asks_for_nothing() {
    let scratch = Scratch::new();
    scratch.deploy(&["gpu", "-i", DEMO, "--yes"]).expect(0);
    let fleets = fs::read_dir(scratch.path().join("state/deploy/sim")).expect("fleets");
    let fleet = fleets.flatten().next().expect("a fleet").path();
    let file = fleet.join("hosts/h100-01/etc/deploy/gpu/mig.conf");
    fs::write(file, "# <script>alert(1)</script>\n").expect("a file");
    scratch.deploy(&["drift", "-i", DEMO]).expect(2);
    let page = fleet_page(&scratch);
    let text = fs::read_to_string(&page).expect("a page");
    let first = text.find("<h3>").map(|at| &text[at + 4..at + 11]);
    assert_eq!(first, Some("h100-01"), "what drifted comes first");
    in_all_ways(&page, "fleet");
}

#[test]
fn the_page_of_a_plan_works_with_scripts_and_without_and_asks_for_nothing() {
    let scratch = Scratch::new();
    in_all_ways(&plan_page(&scratch, DEMO), "plan");
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
fn the_pages_of_two_hundred_hosts_can_be_read() {
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
    let pages = [
        ("plan", plan_page(&scratch, &inventory)),
        ("fleet", fleet_page(&scratch)),
    ];
    let mut browser = Browser::start();
    for (name, page) in pages {
        for (look, kind) in [(Look::DESK, "desk"), (Look::PHONE, "phone")] {
            browser.open(&page, look);
            assert_eq!(browser.complaints(), Vec::<String>::new());
            fits(&mut browser);
            readable(&mut browser);
            let hosts = browser.value("document.querySelectorAll('.host').length");
            assert_eq!(hosts, json!(200));
            assert_eq!(browser.value(CUT_OFF), json!([]), "names that are cut off");
            let small = browser.value(SMALLEST);
            assert!(small.as_f64().expect("a size") >= 12.0, "{small}");
            keep(&format!("{name}-200-{kind}.png"), &browser.picture(6000));
        }
    }
}
