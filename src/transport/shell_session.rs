//! A session over one running loop: requests out, frames in, limits kept.
//!
//! Whatever carries the bytes (an SSH channel, a child process) is a `Link`;
//! this file does not know which. A session that was interrupted, timed out or
//! got something that is no frame cannot be used again: the two sides no longer
//! agree on where they are.

use std::time::{Duration, Instant};

use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::frames::{Frame, Splitter};
use super::replies::{self, Answer};
use super::wire::{self, Dialect, Grouping, STDERR_LIMIT};
use super::{Boxed, Exec, Output, Probe, Read, Reply, Session, TransportError};

/// What a link brings.
#[derive(Debug)]
pub(crate) enum Piece {
    /// Standard output.
    Out(Vec<u8>),
    /// Standard error.
    Err(Vec<u8>),
    /// It is over: how the shell or the connection ended, and the exit status if there was one.
    End(String, Option<u32>),
}

/// The receiving side of a link.
pub(crate) trait Incoming: Send {
    /// The next piece. After `End` it is not called again. May be dropped
    /// while waiting without losing anything.
    fn next(&mut self) -> Boxed<'_, Piece>;
}

/// What carries the bytes between us and the loop.
pub(crate) struct Link {
    pub(crate) incoming: Box<dyn Incoming>,
    pub(crate) outgoing: Box<dyn AsyncWrite + Send + Unpin>,
    /// Ends the connection or the child.
    pub(crate) close: Box<dyn FnOnce() -> Boxed<'static, ()> + Send>,
}

/// One host's running loop.
pub(crate) struct ShellSession {
    pub(crate) link: Link,
    pub(crate) out: Splitter,
    pub(crate) err: Splitter,
    pub(crate) dialect: Dialect,
    /// Why it cannot be used any more.
    pub(crate) broken: Option<String>,
}

/// Where the output of a running command goes while it comes.
struct Stream<'a> {
    on_output: &'a mut (dyn FnMut(&[u8]) + Send),
    kept: Vec<u8>,
    limit: usize,
    truncated: bool,
}

impl Stream<'_> {
    fn take(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        (self.on_output)(bytes);
        let room = self.limit.saturating_sub(self.kept.len());
        self.truncated |= bytes.len() > room;
        self.kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

impl ShellSession {
    /// The replies of an answer. Commands whose group was ended by one of them
    /// are asked for again, each alone: a second round trip, but only then.
    pub(crate) async fn replies(
        &mut self,
        reads: &[Read],
        request: &wire::Request,
        answer: Answer,
    ) -> Result<Vec<Reply>, TransportError> {
        let replies = self.understood(reads, request, answer)?;
        let missing: Vec<usize> = (0..reads.len())
            .filter(|index| replies[*index].is_none())
            .collect();
        let mut replies = replies;
        if !missing.is_empty() {
            let again: Vec<Read> = missing.iter().map(|index| reads[*index].clone()).collect();
            let request = wire::request(&again, Grouping::Alone);
            let answer = self.ask(&request).await?;
            for (index, reply) in missing
                .iter()
                .zip(self.understood(&again, &request, answer)?)
            {
                replies[*index] = reply;
            }
        }
        let replies: Option<Vec<Reply>> = replies.into_iter().collect();
        replies.ok_or_else(|| TransportError::Protocol("a read was not answered".to_owned()))
    }

    fn understood(
        &mut self,
        reads: &[Read],
        request: &wire::Request,
        answer: Answer,
    ) -> Result<Vec<Option<Reply>>, TransportError> {
        replies::replies(reads, request, answer, &self.dialect).map_err(|why| {
            self.broken = Some(why.clone());
            TransportError::Protocol(why)
        })
    }

    pub(crate) async fn ask(&mut self, request: &wire::Request) -> Result<Answer, TransportError> {
        if request.text.is_empty() {
            return Ok(Answer::default());
        }
        let head = format!("{}\n{}", request.text.len(), request.text);
        self.answer(head.as_bytes(), &[], request.patience, request.bytes, None)
            .await
    }

    /// Takes the answer to a request that was sent with the loop itself.
    pub(crate) async fn receive(
        &mut self,
        request: &wire::Request,
    ) -> Result<Answer, TransportError> {
        self.answer(b"", &[], request.patience, request.bytes, None)
            .await
    }

    /// Sends a request and takes frames until the answer's end. Sending and
    /// receiving go on together: a command may answer before it read all.
    async fn answer(
        &mut self,
        head: &[u8],
        input: &[u8],
        patience: Duration,
        most: u64,
        mut stream: Option<&mut Stream<'_>>,
    ) -> Result<Answer, TransportError> {
        if let Some(why) = &self.broken {
            return Err(TransportError::Lost(why.clone()));
        }
        self.broken = Some("an earlier request was interrupted".to_owned());
        let begun = Instant::now();
        let Self { link, out, err, .. } = self;
        let outgoing = &mut link.outgoing;
        let mut collector = Collector {
            answer: Answer::default(),
            out,
            err,
            ended: (false, false),
            bytes: 0,
            most,
        };
        let exchange = async {
            let send = async {
                outgoing.write_all(head).await?;
                outgoing.write_all(input).await?;
                outgoing.flush().await
            };
            tokio::pin!(send);
            let mut sending = true;
            collector.collect(&mut stream)?;
            while collector.ended != (true, true) {
                tokio::select! {
                    // A write that fails is told better by what the host says, or by its end.
                    _ = &mut send, if sending => sending = false,
                    piece = link.incoming.next() => {
                        collector.piece(piece)?;
                        collector.collect(&mut stream)?;
                    }
                }
            }
            Ok(())
        };
        let result = match tokio::time::timeout(patience, exchange).await {
            Ok(result) => result,
            Err(_) => Err(TransportError::Timeout {
                what: "waiting for the host's answer".to_owned(),
                limit: patience,
            }),
        };
        let mut answer = collector.answer;
        match result {
            Ok(()) => {
                self.broken = None;
                answer.took = begun.elapsed();
                Ok(answer)
            }
            Err(error) => {
                self.broken = Some(error.to_string());
                Err(error)
            }
        }
    }

    async fn run(
        &mut self,
        exec: &Exec,
        on_output: &mut (dyn FnMut(&[u8]) + Send),
    ) -> Result<Output, TransportError> {
        let head = match exec.stdin.is_empty() {
            true => {
                let line = wire::exec_line(&exec.command, exec.timeout, 0);
                let text = line.trim_start_matches("x ");
                format!("{}\n{text}", text.len())
            }
            false => wire::exec_line(&exec.command, exec.timeout, exec.stdin.len()),
        };
        let limit = usize::try_from(exec.limit).unwrap_or(usize::MAX);
        let mut stream = Stream {
            on_output,
            kept: Vec::new(),
            limit,
            truncated: false,
        };
        // Sending the input takes time too; a megabyte a second is a slow link.
        let sending = Duration::from_secs(exec.stdin.len() as u64 / (1 << 20));
        let patience =
            Duration::from_secs(wire::seconds(exec.timeout) + 60).saturating_add(sending);
        let answer = self
            .answer(
                head.as_bytes(),
                &exec.stdin,
                patience,
                u64::MAX,
                Some(&mut stream),
            )
            .await?;
        let Stream {
            kept, truncated, ..
        } = stream;
        let wrong = |what: String| TransportError::Protocol(what);
        let frame = answer
            .frames
            .first()
            .ok_or_else(|| wrong("no status came".to_owned()))?;
        let status = frame
            .fields
            .strip_prefix("x ")
            .ok_or_else(|| wrong("no status came".to_owned()))?;
        let status = replies::parse_status(status).map_err(wrong)?;
        let timed_out = replies::timed_out(status, exec.timeout, answer.took);
        let stderr = answer
            .errors
            .into_iter()
            .next()
            .map(|frame| frame.payload)
            .unwrap_or_default();
        Ok(Output {
            status,
            timed_out,
            stdout: kept,
            stderr,
            truncated,
        })
    }
}

/// Puts pieces together to an answer.
struct Collector<'a> {
    answer: Answer,
    out: &'a mut Splitter,
    err: &'a mut Splitter,
    ended: (bool, bool),
    bytes: u64,
    most: u64,
}

impl Collector<'_> {
    fn piece(&mut self, piece: Piece) -> Result<(), TransportError> {
        match piece {
            Piece::Out(bytes) => {
                self.bytes += bytes.len() as u64;
                self.out.push(&bytes);
            }
            Piece::Err(bytes) => self.err.push(&bytes),
            Piece::End(why, _) => return Err(TransportError::Lost(why)),
        }
        if self.bytes > self.most {
            let message = format!("more than {} bytes in answer to one batch", self.most);
            return Err(TransportError::Protocol(message));
        }
        Ok(())
    }

    fn collect(&mut self, stream: &mut Option<&mut Stream<'_>>) -> Result<(), TransportError> {
        while !self.ended.0 {
            match self.out.next().map_err(TransportError::Protocol)? {
                Some(frame) if frame.fields == "end" => self.ended.0 = true,
                Some(Frame { payload, fields }) => match stream {
                    Some(stream) if self.answer.frames.is_empty() => {
                        stream.take(&payload);
                        self.answer.frames.push(Frame {
                            payload: Vec::new(),
                            fields,
                        });
                    }
                    _ => self.answer.frames.push(Frame { payload, fields }),
                },
                None => {
                    if let Some(stream) = stream.as_mut().filter(|_| self.answer.frames.is_empty())
                    {
                        stream.take(&self.out.take_payload());
                    }
                    break;
                }
            }
        }
        while !self.ended.1 {
            match self.err.next().map_err(TransportError::Protocol)? {
                Some(frame) if frame.fields == "end" => self.ended.1 = true,
                Some(mut frame) => {
                    frame.payload.truncate(STDERR_LIMIT);
                    self.answer.errors.push(frame);
                }
                None => {
                    // Of a flood only the start is kept; the end line is still found.
                    self.err.forget_above(STDERR_LIMIT);
                    break;
                }
            }
        }
        Ok(())
    }
}

impl Probe for ShellSession {
    fn batch<'a>(&'a mut self, reads: &'a [Read]) -> Boxed<'a, Result<Vec<Reply>, TransportError>> {
        Box::pin(async move {
            let request = wire::request(reads, Grouping::Together);
            let answer = self.ask(&request).await?;
            self.replies(reads, &request, answer).await
        })
    }
}

impl Session for ShellSession {
    fn exec<'a>(
        &'a mut self,
        exec: &'a Exec,
        on_output: &'a mut (dyn FnMut(&[u8]) + Send),
    ) -> Boxed<'a, Result<Output, TransportError>> {
        Box::pin(self.run(exec, on_output))
    }

    fn close(self: Box<Self>) -> Boxed<'static, ()> {
        let Link {
            incoming,
            outgoing,
            close,
        } = self.link;
        // The loop ends by itself when its input does.
        drop((incoming, outgoing));
        close()
    }
}
