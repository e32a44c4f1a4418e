//! A command that runs beside the recording.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::process::{Command, ExitStatus};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use log::warn;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::sync::oneshot;

use crate::kernel::user::User;

/// How long it has to go after it was asked to.
const GRACE: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Running {
    /// Names the process even after its number was given to another.
    process: OwnedFd,
    status: Receiver<io::Result<ExitStatus>>,
}

impl Running {
    /// Starts it, as another user if there is one; `ended` is told when it has ended.
    pub(super) fn start(
        words: &[OsString],
        user: Option<&User>,
        ended: oneshot::Sender<()>,
    ) -> Result<Running> {
        let (name, arguments) = words.split_first().context("there is no command to run")?;
        let mut command = Command::new(name);
        command.args(arguments);
        if let Some(user) = user {
            user.runs(&mut command);
        }
        let mut child = command.spawn().with_context(|| {
            let user = user.map(|user| format!(" as {user}"));
            format!(
                "cannot run {}{}",
                name.to_string_lossy(),
                user.unwrap_or_default()
            )
        })?;
        let process = Pid::from_raw(child.id().cast_signed())
            .ok_or(io::Error::from(io::ErrorKind::NotFound))
            .and_then(|pid| Ok(pidfd_open(pid, PidfdFlags::empty())?))
            .context("cannot hold on to the command")?;
        let (tell, status) = channel();
        thread::Builder::new()
            .name("command".to_owned())
            .spawn(move || {
                let status = child.wait();
                // Either may have stopped listening.
                let _ = tell.send(status);
                let _ = ended.send(());
            })
            .context("cannot wait for the command")?;
        Ok(Running { process, status })
    }

    /// How it ended. One that still runs is asked to, as the recording is over;
    /// `None` where it does not.
    pub(super) fn end(self) -> Option<ExitStatus> {
        let status = self.status.try_recv().or_else(|_| {
            // It may end by itself just now.
            let _ = pidfd_send_signal(&self.process, Signal::TERM);
            self.status.recv_timeout(GRACE)
        });
        match status {
            Ok(Ok(status)) => Some(status),
            Ok(Err(error)) => {
                warn!("cannot tell how the command ended: {error}");
                None
            }
            Err(_) => {
                warn!("the command was asked to end and goes on");
                None
            }
        }
    }
}
