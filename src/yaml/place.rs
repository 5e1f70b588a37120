//! From the parser's markers to origins.
//!
//! The parser counts characters; origins and snippets want bytes. Texts are
//! mostly ASCII, where the two are the same; for others every 64th character's
//! byte offset is remembered.

use std::ops::Range;
use std::sync::Arc;

use saphyr_parser::{Marker, Span};

use crate::error::{Origin, Source};

const STRIDE: usize = 64;

/// Turns markers of one text into origins.
pub(super) struct Places {
    source: Arc<Source>,
    // Byte offset of every 64th character; empty for ASCII.
    marks: Vec<usize>,
}

impl Places {
    pub(super) fn new(source: &Arc<Source>) -> Self {
        let marks = if source.text.is_ascii() {
            Vec::new()
        } else {
            source
                .text
                .char_indices()
                .step_by(STRIDE)
                .map(|(at, _)| at)
                .collect()
        };
        Self {
            source: Arc::clone(source),
            marks,
        }
    }

    /// The origin of what stands between two markers.
    pub(super) fn origin(&self, span: Span) -> Origin {
        let start = self.byte(span.start);
        let end = self.byte(span.end).max(start);
        self.at(span.start, start..end)
    }

    /// The origin of a point; it spans the character there.
    pub(super) fn point(&self, marker: Marker) -> Origin {
        let start = self.byte(marker);
        let width = self.source.text[start..]
            .chars()
            .next()
            .map_or(0, char::len_utf8);
        self.at(marker, start..start + width)
    }

    fn at(&self, marker: Marker, span: Range<usize>) -> Origin {
        Origin {
            source: Arc::clone(&self.source),
            span,
            line: marker.line().max(1),
            column: marker.col() + 1,
        }
    }

    fn byte(&self, marker: Marker) -> usize {
        let text = &self.source.text;
        if self.marks.is_empty() {
            return marker.index().min(text.len());
        }
        let Some(base) = self.marks.get(marker.index() / STRIDE) else {
            return text.len();
        };
        text[*base..]
            .char_indices()
            .nth(marker.index() % STRIDE)
            .map_or(text.len(), |(at, _)| base + at)
    }
}
