//! The byte stream under SSH, listening in on how the server introduces itself.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use russh::ChannelStream;
use russh::client::Msg;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The first bytes of a server, until it has said `SSH-`: whether it is one at
/// all, and what it said instead.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heard(Arc<Mutex<Vec<u8>>>);

/// Enough for a refusal in front of the banner.
const HEARD: usize = 256;

impl Heard {
    fn take(&self, bytes: &[u8]) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = HEARD.saturating_sub(heard.len());
        heard.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// Whether it introduced itself as an SSH server.
    pub(crate) fn ssh(&self) -> bool {
        self.text().lines().any(|line| line.starts_with("SSH-"))
    }

    /// What it said first, fit for a message.
    pub(crate) fn text(&self) -> String {
        let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&heard);
        text.trim()
            .chars()
            .map(|c| if c.is_control() && c != '\n' { ' ' } else { c })
            .collect()
    }
}

enum Way {
    Tcp(TcpStream),
    Jump(ChannelStream<Msg>),
}

/// TCP, or a channel through a jump host.
pub(crate) struct Stream {
    way: Way,
    heard: Heard,
    /// Reads that are still listened to, and acknowledged at once.
    early: u32,
}

/// Reads of a handshake and the start of the loop.
const EARLY: u32 = 48;

impl Stream {
    pub(crate) fn tcp(stream: TcpStream, heard: Heard) -> Self {
        Self {
            way: Way::Tcp(stream),
            heard,
            early: EARLY,
        }
    }

    pub(crate) fn through(stream: ChannelStream<Msg>, heard: Heard) -> Self {
        Self {
            way: Way::Jump(stream),
            heard,
            early: EARLY,
        }
    }
}

/// sshd holds a small packet back until the one before is acknowledged, and
/// the kernel delays that by 40 ms unless told otherwise; it forgets, so it is
/// told again after each read of the handshake.
#[cfg(target_os = "linux")]
fn acknowledge_at_once(stream: &TcpStream) {
    let _ = rustix::net::sockopt::set_tcp_quickack(stream, true);
}

#[cfg(not(target_os = "linux"))]
fn acknowledge_at_once(_stream: &TcpStream) {}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let (Way::Tcp(stream), true) = (&this.way, this.early > 0) {
            acknowledge_at_once(stream);
        }
        let before = buffer.filled().len();
        let result = match &mut this.way {
            Way::Tcp(stream) => ready!(Pin::new(stream).poll_read(cx, buffer)),
            Way::Jump(stream) => ready!(Pin::new(stream).poll_read(cx, buffer)),
        };
        if this.early > 0 {
            this.early -= 1;
            this.heard.take(&buffer.filled()[before..]);
        }
        Poll::Ready(result)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.way {
            Way::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Way::Jump(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.way {
            Way::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Way::Jump(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.way {
            Way::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Way::Jump(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
