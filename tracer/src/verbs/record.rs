//! `twtrace record`: has a session recorded into a file, runs a command beside
//! it, and tells how far it is.

mod progress;
mod running;

use std::env;
use std::ffi::OsString;

use anyhow::{Error, Result};
use tokio::sync::oneshot;

use self::progress::Progress;
use self::running::Running;
use crate::kernel::requirements;
use crate::kernel::user::{self, User};
use crate::options::RecordOptions;
use crate::output;
use crate::recorder::file::Writer;
use crate::recorder::{self, Contents};
use crate::recording::Line;
use crate::session::{More, Plan};
use crate::units;

/// Records until the time is over, the command has ended, or a signal asks to end.
pub fn run(options: &RecordOptions) -> Result<()> {
    let user = user(options)?;
    let facts = requirements::check(options.scope.netns.reach())?;
    let mut writer = Writer::open(&options.output)?;
    let plan = Plan {
        scope: options.scope.clone(),
        interval: options.interval,
        looks: false,
        duration: options.duration,
        ring_bytes: options.ring_bytes,
        distortion: None,
    };
    let words = words(&options.command);
    let name = words.first().cloned();
    let contents = Contents {
        events: options.events,
        command: name.is_some().then_some(words),
    };

    let mut progress = Progress::new(options.duration, name.is_none());
    let mut command = None;
    let (ended, has_ended) = oneshot::channel();
    let mut ended = name.is_some().then_some(ended);
    let recorded = recorder::run(&facts, &plan, &contents, told(has_ended), &mut |line| {
        match line {
            // Stock has been taken: nothing that the command does is missed. Where
            // it cannot be started, what was in the file stays.
            Line::Header(_) => {
                if let Some(ended) = ended.take() {
                    command = Some(Running::start(&options.command, user.as_ref(), ended)?);
                }
            }
            Line::Frame(frame) => progress.frame(frame),
            _ => {}
        }
        writer.write(line)?;
        Ok(More::Yes)
    });
    progress.end();
    let status = command
        .and_then(Running::end)
        .map(|status| status.to_string());
    let mut end = recorded?;
    end.command_status.clone_from(&status);
    let frames = end.frames;
    writer.write(&Line::End(Box::new(end)))?;
    let bytes = writer.finish()?;

    if let (Some(name), Some(status)) = (name, status) {
        output::say(&format!("{name} ended with {status}"))?;
    }
    output::say(&format!(
        "recorded {} in {}, {}: {}",
        units::seconds(progress.elapsed_s()),
        units::counted(frames, "frame", "frames"),
        units::bytes(bytes),
        progress.seen()
    ))?;
    Ok(())
}

/// A command as people read it: one of a thousand files is not told to its end.
fn words(command: &[OsString]) -> Vec<String> {
    const LONGEST: usize = 32 << 10;
    let mut words = Vec::new();
    let mut length = 0;
    for word in command {
        let word = word.to_string_lossy();
        length += word.len();
        if length > LONGEST && !words.is_empty() {
            words.push("…".to_owned());
            break;
        }
        words.push(units::shortened(&word, LONGEST));
    }
    words
}

/// As whom the command is to run, unless as we are.
fn user(options: &RecordOptions) -> Result<Option<User>> {
    let Some(name) = options.command.first() else {
        return Ok(None);
    };
    let chosen = options.user.as_deref().map(user::find).transpose();
    let chosen = chosen.map_err(Error::msg)?;
    if chosen.is_some() {
        return Ok(chosen.filter(|user| !user.is_ourselves()));
    }
    let caller = user::who_called_sudo(|name| env::var_os(name)).map_err(Error::msg)?;
    let caller = caller.filter(|user| !user.is_ourselves());
    if let Some(caller) = &caller {
        output::say(&format!(
            "running {} as {caller}, who called sudo; --user root runs it as root",
            name.to_string_lossy()
        ))?;
    }
    Ok(caller)
}

/// Waits to be told. Where nobody is left who could tell, there was nothing to
/// wait for.
async fn told(has_ended: oneshot::Receiver<()>) {
    if has_ended.await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn a_command_of_a_thousand_files_is_not_told_to_its_end() {
        let short = ["sleep".into(), "130".into()];
        assert_eq!(words(&short), ["sleep", "130"]);
        let long: Vec<_> = (0..10_000).map(|n| format!("file_{n}").into()).collect();
        let told = words(&long);
        let length: usize = told.iter().map(String::len).sum();
        assert!((30_000..40_000).contains(&length), "{length}");
        assert_eq!(told.last().unwrap(), "…");
        let one = words(&["x".repeat(100_000).into()]);
        assert!(one[0].len() < 40_000, "{}", one[0].len());
    }
}
