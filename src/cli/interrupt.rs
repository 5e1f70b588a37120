//! Ctrl-C and SIGTERM: heard once for the whole program, and answered by whoever
//! attends to them. Where nobody does, they end the program.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// The user's signals.
#[derive(Debug, Clone)]
pub struct Interrupts {
    heard: watch::Receiver<u32>,
    attended: Arc<AtomicBool>,
}

impl Interrupts {
    /// Listens from now on.
    ///
    /// # Errors
    /// The system does not let us.
    pub fn listen() -> io::Result<Self> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let (count, heard) = watch::channel(0);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                count.send_modify(|count| *count += 1);
            }
        });
        Ok(Self {
            heard,
            attended: Arc::default(),
        })
    }

    /// Comes back at the first signal that nobody attends to.
    pub async fn unattended(&mut self) {
        loop {
            next(&mut self.heard).await;
            if !self.attended.load(Ordering::SeqCst) {
                return;
            }
        }
    }

    /// From now on, and until the result is dropped, signals are its owner's affair.
    #[must_use]
    pub fn attend(&self) -> Attention {
        let mut heard = self.heard.clone();
        heard.mark_unchanged();
        self.attended.store(true, Ordering::SeqCst);
        Attention {
            heard,
            attended: Arc::clone(&self.attended),
        }
    }
}

/// Somebody who answers the user's signals.
#[derive(Debug)]
pub struct Attention {
    heard: watch::Receiver<u32>,
    attended: Arc<AtomicBool>,
}

impl Attention {
    /// Waits for the next signal.
    pub async fn next(&mut self) {
        next(&mut self.heard).await;
    }
}

impl Drop for Attention {
    fn drop(&mut self) {
        self.attended.store(false, Ordering::SeqCst);
    }
}

async fn next(heard: &mut watch::Receiver<u32>) {
    if heard.changed().await.is_err() {
        // Nobody listens for signals any more, so none will come.
        std::future::pending::<()>().await;
    }
}
