//! `deploy catalog fit`: layouts that hold what tenants need, best first.
//!
//! Reads the question and prints the answer; `strategy::fit` finds it.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::catalog::{Catalog, Model, draw};
use crate::content::Content;
use crate::error::Diagnostic;
use crate::report;
use crate::report::exit::Exit;
use crate::report::line::{Kind, Line};
use crate::step::Slice;
use crate::strategy::{self, Fit, Need};
use crate::text;

use super::Failure;
use super::args::{FitArgs, Format};

/// Prints the layouts.
///
/// # Errors
/// What is wrong with the question or the models files, or that nothing fits.
pub(super) fn run(args: &FitArgs) -> Result<Exit, Failure> {
    let needs = needs(&args.need)?;
    let (content, problems) = Content::find(args.project.as_deref(), &[]);
    if problems.has_errors() {
        return Err(problems.into());
    }
    let catalog = Catalog::load(&content)?;
    let model = catalog.resolve(&args.gpu)?;
    let fits = strategy::fit(model, &needs)?;
    let shown = &fits[..fits.len().min(args.most.max(1))];
    match args.output.output {
        Format::Human => report::data(&human(model, &needs, shown, fits.len())),
        Format::Json => report::json_answer(shown.iter().map(|fit| line(model, fit)).collect()),
    }
    Ok(Exit::Done)
}

fn line(model: &Model, fit: &Fit) -> Line {
    let mut body = json!({ "model": model.key });
    if let (Value::Object(body), Value::Object(fit)) = (&mut body, json!(fit)) {
        body.extend(fit);
    }
    let count = |(name, count): &(String, u32)| (name.clone(), json!(count));
    body["profiles"] = Value::Object(fit.profiles.iter().map(count).collect());
    Line::new(Kind::MigLayout, body)
}

/// Reads `6x9GB,1x35GB`; a memory without a count is one tenant.
fn needs(text: &str) -> Result<Vec<Need>, Diagnostic> {
    let words = text
        .split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty());
    let needs: Vec<Need> = words.map(need).collect::<Result<_, _>>()?;
    if needs.is_empty() {
        return Err(Diagnostic::error("`--need` asks for nothing")
            .hint("say how many tenants need how much memory, such as `6x9GB,1x35GB`"));
    }
    Ok(needs)
}

fn need(word: &str) -> Result<Need, Diagnostic> {
    let wrong = || {
        Diagnostic::error(format!("`{word}` is no COUNTxMEMORY"))
            .hint("write such as `6x9GB`; GB, GiB, MB and MiB are known")
    };
    let (count, memory) = match word.split_once(['x', 'X', '×']) {
        Some((count, memory)) => (count.trim().parse().map_err(|_| wrong())?, memory.trim()),
        None => (1, word),
    };
    let bytes = text::bytes_of(memory)
        .filter(|_| count > 0)
        .ok_or_else(wrong)?;
    Ok(Need { count, bytes })
}

fn human(model: &Model, needs: &[Need], shown: &[Fit], all: usize) -> String {
    let grid = model.mig.as_ref().and_then(|mig| mig.memory_slices);
    let tenants: u32 = needs.iter().map(|need| need.count).sum();
    let asked: u64 = needs
        .iter()
        .map(|need| u64::from(need.count) * need.bytes)
        .sum();
    let mut text = format!(
        "{}: {tenants} {}, {} in all\n",
        model.key,
        if tenants == 1 { "tenant" } else { "tenants" },
        gib(asked >> 20),
    );
    for (number, fit) in shown.iter().enumerate() {
        let cards = match fit.cards.len() {
            1 => "1 card".to_owned(),
            cards => format!("{cards} cards"),
        };
        let profiles: Vec<String> = fit
            .profiles
            .iter()
            .map(|(name, count)| format!("{count} × {name}"))
            .collect();
        let _ = writeln!(text, "\n{}. {cards}: {}", number + 1, profiles.join(", "));
        let mut at = 0;
        while let Some(card) = fit.cards.get(at) {
            let same = fit.cards[at..]
                .iter()
                .take_while(|other| *other == card)
                .count();
            let slices: Vec<Slice> = card
                .iter()
                .map(|instance| Slice {
                    placement: instance.placement,
                    profile: instance.profile.clone(),
                    compute: vec![instance.profile.clone()],
                })
                .collect();
            let times = if fit.cards.len() == 1 {
                String::new()
            } else {
                format!("{same} × ")
            };
            let bar = draw::bar(grid.unwrap_or(0), &slices, draw::USUAL_WIDTH - 8);
            let _ = writeln!(text, "   {times:<4} {bar}");
            at += same;
        }
        let _ = writeln!(
            text,
            "   {} beyond the need, {} in no instance, {} of {} compute slices idle",
            gib(fit.beyond_mib),
            gib(fit.free_mib),
            fit.free_compute,
            fit.compute,
        );
        let _ = writeln!(text, "   {}", variables(fit));
    }
    if all > shown.len() {
        let _ = writeln!(text, "\n{} more with --most {all}", all - shown.len());
    }
    text
}

/// What to write below `containers_gpu_slicing` for it.
fn variables(fit: &Fit) -> String {
    let lines = fit.profiles.iter();
    let lines: Vec<String> = lines
        .map(|(name, count)| format!("{name}: {count}"))
        .collect();
    format!("request: {{{}}}", lines.join(", "))
}

fn gib(mib: u64) -> String {
    format!("{:.1} GiB", mib as f64 / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_are_read_with_their_units() {
        let read = needs("6x9GB, 1x35GiB,512MiB").expect("three");
        assert_eq!(
            read,
            [
                Need {
                    count: 6,
                    bytes: 9_000_000_000
                },
                Need {
                    count: 1,
                    bytes: 35 << 30
                },
                Need {
                    count: 1,
                    bytes: 512 << 20
                },
            ]
        );
        for wrong in [
            "",
            "6x",
            "x9GB",
            "6x9",
            "0x9GB",
            "-1x9GB",
            "6xNaNGB",
            "1xinfGB",
            "6x9TB",
            "é",
            "1x99999999GB",
        ] {
            assert!(needs(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_answer_is_drawn_and_says_what_to_write() {
        let catalog = Catalog::load(&Content::shipped()).expect("the shipped files are right");
        let model = catalog.by_key("H100-80GB").expect("a model");
        let needs = needs("4x9GB,1x35GB").expect("needs");
        let fits = strategy::fit(model, &needs).expect("layouts");
        let text = human(model, &needs, &fits[..1], fits.len());
        assert!(
            text.contains("1. 1 card: 1 × 3g.40gb, 4 × 1g.10gb"),
            "{text}"
        );
        assert!(text.contains("request: {3g.40gb: 1, 1g.10gb: 4}"), "{text}");
        assert!(text.contains("│3g.40gb"), "{text}");
    }
}
