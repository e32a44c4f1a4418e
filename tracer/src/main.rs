//! The binary: parse, dispatch, exit codes.

use std::error::Error;
use std::io;
use std::process::ExitCode;

use anyhow::bail;
use log::LevelFilter;
use tracer::cli::{self, Request};
use tracer::options::Load;
use tracer::{output, verbs};

/// Something went wrong; 1 is kept for negative answers, 3 for undecided ones.
const ERROR: u8 = 2;

fn main() -> ExitCode {
    let (request, log_level) = cli::request(std::env::args_os()).unwrap_or_else(|e| e.exit());
    // Our own rooms, and those of the kernel side; libraries only warn.
    env_logger::Builder::new()
        .filter_level(log_level.min(LevelFilter::Warn))
        .filter_module("tracer", log_level)
        .filter_module("twtrace", log_level)
        .format(output::log)
        .init();
    match perform(request) {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::fail(&error);
            ExitCode::from(ERROR)
        }
    }
}

fn perform(request: Request) -> anyhow::Result<ExitCode> {
    match request {
        Request::Live(options) => verbs::live::run(&options),
        Request::Events(options) => verbs::events::run(&options).map(|()| ExitCode::SUCCESS),
        Request::Doctor(options) => verbs::doctor::run(&options),
        Request::Explain(options) => verbs::explain::run(&options).map(|()| ExitCode::SUCCESS),
        Request::Record(options) => verbs::record::run(&options).map(|()| ExitCode::SUCCESS),
        Request::Report(options) => verbs::report::run(&options).map(|()| ExitCode::SUCCESS),
        Request::Compare(options) => verbs::compare::run(&options),
        Request::Trial(_) => bail!(
            "a trial of this machine itself is not there yet; `twtrace lab -- trial …` tries the same \
             change in network namespaces of its own"
        ),
        Request::Lab { load, verb } => match (load, *verb) {
            (Load::Shape(shape), Request::Trial(options)) => verbs::trial::run(&shape, &options),
            (load, mut verb) => verbs::lab::run(&load, |lab| {
                if let Some(scope) = verb.scope_mut() {
                    scope.netns = lab.within(&scope.netns);
                }
                perform(verb)
            }),
        },
    }
}

/// Whether the reader of our output has gone, which is his right: `| head`.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause: &(dyn Error + 'static)| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}
