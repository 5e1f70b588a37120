//! The page around any content: head, styles, script, and the policy that lets nothing else
//! in. Knows nothing of hosts.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::escaped;

/// The styles of all pages.
const STYLE: &str = include_str!("style.css");
/// The script of all pages; what it works on is hidden without it.
const SCRIPT: &str = include_str!("filter.js");

/// A page in the making.
#[derive(Debug, Clone)]
pub struct Frame<'a> {
    /// Title of the window and heading of the page.
    pub title: &'a str,
    /// Where the content comes from, in a sentence; left out where it is empty.
    pub source: &'a str,
    /// The content: HTML whose text was escaped by whoever made it.
    pub content: &'a str,
}

impl Frame<'_> {
    /// The whole page.
    #[must_use]
    pub fn page(&self) -> String {
        let title = escaped(self.title);
        let source = match self.source.is_empty() {
            true => String::new(),
            false => format!("<p class=\"source\">{}</p>\n", escaped(self.source)),
        };
        let policy = policy();
        let content = self.content;
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n\
             <meta name=\"referrer\" content=\"no-referrer\">\n\
             <link rel=\"icon\" href=\"data:,\">\n\
             <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
             <a class=\"skip\" href=\"#content\">Skip to the content</a>\n\
             <header>\n<h1>{title}</h1>\n{source}</header>\n\
             <main id=\"content\">\n{content}</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
        )
    }
}

/// Only our own style and script, by hash; nothing is loaded from anywhere.
fn policy() -> String {
    let hash = |text: &str| STANDARD.encode(Sha256::digest(text.as_bytes()));
    format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; img-src data:; base-uri 'none'; form-action 'none'",
        hash(STYLE),
        hash(SCRIPT)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_fits_what_stands_in_the_page() {
        let frame = Frame {
            title: "a < b",
            source: "",
            content: "<p>x</p>\n",
        };
        let page = frame.page();
        for (open, close, word) in [
            ("<style>", "</style>", "style-src"),
            ("<script>", "</script>", "script-src"),
        ] {
            let (_, rest) = page.split_once(open).expect("it is there");
            let (inner, _) = rest.split_once(close).expect("it is closed");
            let hash = STANDARD.encode(Sha256::digest(inner.as_bytes()));
            assert!(page.contains(&format!("{word} 'sha256-{hash}'")));
        }
        assert!(page.contains("<title>a &lt; b</title>"));
        assert!(page.contains("default-src 'none'"));
    }

    #[test]
    fn style_and_script_reach_for_nothing_and_cannot_end_their_element() {
        for text in [STYLE, SCRIPT] {
            for word in [
                "</",
                "http:",
                "https:",
                "//",
                "url(",
                "@import",
                "innerHTML",
                "fetch",
                "eval",
            ] {
                assert!(!text.contains(word), "`{word}`");
            }
        }
    }
}
