//! Prometheus' text format: metrics with their samples, as one text. Knows no metric.

use std::fmt::Write as _;

/// A metric with its samples; all are gauges.
#[derive(Debug, Clone)]
pub struct Metric {
    name: &'static str,
    help: &'static str,
    samples: Vec<(String, f64)>,
}

impl Metric {
    /// A metric without samples, which is not printed. The help is one line.
    #[must_use]
    pub fn new(name: &'static str, help: &'static str) -> Self {
        Self {
            name,
            help,
            samples: Vec::new(),
        }
    }

    /// Adds a sample.
    pub fn add(&mut self, labels: &Labels, value: impl Into<f64>) {
        self.samples.push((labels.0.clone(), value.into()));
    }

    /// Adds a sample if there is a value.
    pub fn add_known(&mut self, labels: &Labels, value: Option<impl Into<f64>>) {
        if let Some(value) = value {
            self.add(labels, value);
        }
    }
}

/// `name="value"` pairs, joined by commas.
#[derive(Debug, Clone, Default)]
pub struct Labels(String);

impl Labels {
    /// These and one more. An empty value is the same as no label, and is left out.
    #[must_use]
    pub fn with(&self, name: &str, value: &str) -> Self {
        let mut text = self.0.clone();
        if !value.is_empty() {
            let comma = if text.is_empty() { "" } else { "," };
            let _ = write!(text, "{comma}{name}=\"{}\"", escaped(value));
        }
        Self(text)
    }
}

/// A label's value: backslash, quote and line feed are escaped, as the exposition format
/// asks; other control characters, which it would let stand, are no part of any name and go.
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            c if c.is_control() => text.push('?'),
            c => text.push(c),
        }
    }
    text
}

/// The metrics as one text; what has no sample is not named.
#[must_use]
pub fn text<'a>(metrics: impl IntoIterator<Item = &'a Metric>) -> String {
    let mut out = String::new();
    for metric in metrics {
        if metric.samples.is_empty() {
            continue;
        }
        let _ = writeln!(out, "# HELP {} {}", metric.name, metric.help);
        let _ = writeln!(out, "# TYPE {} gauge", metric.name);
        for (labels, value) in &metric.samples {
            let _ = writeln!(out, "{}{{{labels}}} {value}", metric.name);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_values_are_escaped_as_the_format_asks() {
        let labels = Labels::default()
            .with("host", "a\\b\"c\nd\u{1b}e")
            .with("uuid", "");
        assert_eq!(labels.0, r#"host="a\\b\"c\nd?e""#);
    }

    #[test]
    fn a_metric_without_samples_is_not_named() {
        let mut some = Metric::new("a", "A.");
        some.add(&Labels::default().with("x", "y"), 1.5);
        let none = Metric::new("b", "B.");
        assert_eq!(
            text([&none, &some]),
            "# HELP a A.\n# TYPE a gauge\na{x=\"y\"} 1.5\n"
        );
    }
}
