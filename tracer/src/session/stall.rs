//! Ending a run whose output nobody takes.
//!
//! The loop writes as any program does, and so waits for a reader who has
//! stopped: `| less`, a terminal held by Ctrl-S. A signal that asks it to end
//! would then wait as well. Somebody else listens to it here.

use std::process;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::output;

/// How long after the signal a run may take to end by itself: a last look at the
/// machine takes a second where it has hundreds of namespaces.
const PATIENCE: Duration = Duration::from_secs(5);

/// As after any other error.
const ERROR: i32 = 2;

/// Ends the process if a signal asks for it and this is not dropped in time.
#[derive(Debug)]
pub(super) struct Guard {
    /// Told by being dropped.
    over: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Guard {
    pub(super) fn start() -> Result<Guard> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot listen to signals")?;
        let mut signals = {
            // Signals are heard from here on, not from when the thread runs.
            let _entered = runtime.enter();
            [
                SignalKind::terminate(),
                SignalKind::interrupt(),
                SignalKind::hangup(),
            ]
            .map(signal)
        };
        let (over, is_over) = oneshot::channel::<()>();
        let watch = async move {
            let [Ok(terminate), Ok(interrupt), Ok(hangup)] = &mut signals else {
                return;
            };
            let end = async {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                    _ = hangup.recv() => {}
                }
                tokio::time::sleep(PATIENCE).await;
                leave();
            };
            tokio::select! {
                _ = is_over => {}
                () = end => {}
            }
        };
        let thread = thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || runtime.block_on(watch))
            .context("cannot listen to signals")?;
        Ok(Guard {
            over: Some(over),
            thread: Some(thread),
        })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.over.take());
        if let Some(thread) = self.thread.take() {
            // It has nothing to panic about, and nobody to tell.
            let _ = thread.join();
        }
    }
}

/// What is attached goes with the process, however that ends.
fn leave() {
    // The reader who has stopped may be that of the errors as well.
    if output::errors_are_taken() {
        let _ = output::say(&format!(
            "twtrace: nobody takes the output; ended {} s after the signal, with its last lines unsaid",
            PATIENCE.as_secs()
        ));
    }
    process::exit(ERROR);
}
