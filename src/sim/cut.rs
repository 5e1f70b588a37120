//! A stream that can be cut: at once, or after so many bytes to the other side.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// When to cut.
#[derive(Debug)]
pub(super) struct Cut {
    left: AtomicU64,
    waker: std::sync::Mutex<Option<std::task::Waker>>,
}

impl Default for Cut {
    fn default() -> Self {
        Self {
            left: AtomicU64::new(u64::MAX),
            waker: std::sync::Mutex::new(None),
        }
    }
}

impl Cut {
    /// Cuts after so many more bytes; never, without a number.
    pub(super) fn after(&self, bytes: Option<u64>) {
        self.left.store(bytes.unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// Cuts now.
    pub(super) fn now(&self) {
        self.after(Some(0));
        let waker = self.waker.lock().ok().and_then(|mut waker| waker.take());
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn is_cut(&self) -> bool {
        self.left.load(Ordering::SeqCst) == 0
    }
}

/// The stream.
#[derive(Debug)]
pub(super) struct CutStream<S> {
    stream: S,
    cut: Arc<Cut>,
}

impl<S> CutStream<S> {
    /// A stream that `cut` ends.
    pub(super) fn new(stream: S, cut: Arc<Cut>) -> Self {
        Self { stream, cut }
    }
}

fn broken() -> io::Error {
    io::Error::from(io::ErrorKind::ConnectionReset)
}

impl<S: AsyncRead + Unpin> AsyncRead for CutStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Ok(mut waker) = self.cut.waker.lock() {
            *waker = Some(cx.waker().clone());
        }
        if self.cut.is_cut() {
            return Poll::Ready(Err(broken()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for CutStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let left = self.cut.left.load(Ordering::SeqCst);
        if left == 0 {
            return Poll::Ready(Err(broken()));
        }
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        let written = std::task::ready!(Pin::new(&mut self.stream).poll_write(cx, &buf[..most]))?;
        if left != u64::MAX {
            let rest = left.saturating_sub(u64::try_from(written).unwrap_or(left));
            self.cut.left.store(rest, Ordering::SeqCst);
            if rest == 0 {
                self.cut.now();
            }
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
