//! Cutting a byte stream into frames: payload, line feed, end line.
//!
//! The end line starts with a name that the host drew and that no output can
//! guess, so payloads are 8-bit clean and need no length. This file knows
//! nothing of what a frame means.

/// One frame: what came before the end line, and what the line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    /// The bytes.
    pub(crate) payload: Vec<u8>,
    /// What stands on the end line after the name.
    pub(crate) fields: String,
}

/// An end line longer than this is not ours: the longest one we make holds one
/// letter a path of a batch.
const LONGEST_LINE: usize = 1 << 20;

/// Cuts one stream.
#[derive(Debug)]
pub(crate) struct Splitter {
    /// Line feed, name, blank.
    pattern: Vec<u8>,
    buffer: Vec<u8>,
    /// How much of the buffer holds no start of the pattern.
    scanned: usize,
}

impl Splitter {
    /// A splitter for end lines that start with `name`.
    pub(crate) fn new(name: &str) -> Self {
        Self {
            pattern: format!("\n@@{name} ").into_bytes(),
            buffer: Vec::new(),
            scanned: 0,
        }
    }

    /// Takes bytes as they come.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, if it has come.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, String> {
        let Some(at) = find_from(&self.buffer, &self.pattern, self.scanned) else {
            // Only what may be the start of an end line is kept back: a command's
            // output is seen as it comes.
            let end = self.buffer.len();
            let tail = (end + 1)
                .saturating_sub(self.pattern.len())
                .max(self.scanned);
            self.scanned = (tail..end)
                .find(|at| self.pattern.starts_with(&self.buffer[*at..]))
                .unwrap_or(end);
            return Ok(None);
        };
        self.scanned = at;
        let start = at + self.pattern.len();
        let Some(length) = self.buffer[start..].iter().position(|byte| *byte == b'\n') else {
            return match self.buffer.len() - start > LONGEST_LINE {
                true => Err("an end line without end".to_owned()),
                false => Ok(None),
            };
        };
        let fields = String::from_utf8_lossy(&self.buffer[start..start + length]).into_owned();
        let rest = self.buffer.split_off(start + length + 1);
        let mut payload = std::mem::replace(&mut self.buffer, rest);
        payload.truncate(at);
        self.scanned = 0;
        Ok(Some(Frame { payload, fields }))
    }

    /// Takes out the bytes that surely belong to the payload of a frame that is
    /// not whole yet. Call `next` first.
    pub(crate) fn take_payload(&mut self) -> Vec<u8> {
        let rest = self.buffer.split_off(self.scanned.min(self.buffer.len()));
        self.scanned = 0;
        std::mem::replace(&mut self.buffer, rest)
    }

    /// Drops what surely belongs to the payload beyond its first `limit` bytes.
    /// Call `next` first.
    pub(crate) fn forget_above(&mut self, limit: usize) {
        let sure = self.scanned.min(self.buffer.len());
        if sure > limit {
            self.buffer.drain(limit..sure);
            self.scanned = limit;
        }
    }
}

/// Where `needle` first stands in `haystack` at or after `from`.
pub(crate) fn find_from(haystack: &[u8], needle: &[u8], from: usize) -> Option<usize> {
    let first = *needle.first()?;
    let mut at = from;
    while at + needle.len() <= haystack.len() {
        let window = &haystack[at..=haystack.len() - needle.len()];
        at += window.iter().position(|byte| *byte == first)?;
        if haystack[at..].starts_with(needle) {
            return Some(at);
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frames(splitter: &mut Splitter) -> Vec<Frame> {
        let mut all = Vec::new();
        while let Some(frame) = splitter.next().expect("lines end") {
            all.push(frame);
        }
        all
    }

    #[test]
    fn an_end_line_cut_anywhere_is_found() {
        let stream = b"one\n@@n r 0\n\n@@n r 1\n\xff\x00\n@@\n@@n end\n";
        for cut in 0..stream.len() {
            let mut splitter = Splitter::new("n");
            splitter.push(&stream[..cut]);
            let mut all = frames(&mut splitter);
            splitter.push(&stream[cut..]);
            all.extend(frames(&mut splitter));
            let payloads: Vec<&[u8]> = all.iter().map(|f| f.payload.as_slice()).collect();
            assert_eq!(
                payloads,
                [b"one".as_slice(), b"", b"\xff\x00\n@@"],
                "cut at {cut}"
            );
            assert_eq!(all[2].fields, "end");
        }
    }

    proptest! {
        #[test]
        fn streaming_gives_the_payload_and_nothing_else(
            payload in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'@'), Just(b'n'), any::<u8>()], 0..200),
            piece in 1_usize..20,
        ) {
            prop_assume!(find_from(&payload, b"\n@@nn ", 0).is_none());
            let mut stream = payload.clone();
            stream.extend_from_slice(b"\n@@nn x 0\n");
            let mut splitter = Splitter::new("nn");
            let mut seen = Vec::new();
            let mut end = None;
            for bytes in stream.chunks(piece) {
                splitter.push(bytes);
                match splitter.next().expect("lines end") {
                    Some(frame) => { seen.extend_from_slice(&frame.payload); end = Some(frame.fields); }
                    None => seen.extend(splitter.take_payload()),
                }
            }
            prop_assert_eq!(seen, payload);
            prop_assert_eq!(end.as_deref(), Some("x 0"));
        }
    }
}
