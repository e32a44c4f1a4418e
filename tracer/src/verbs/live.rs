//! `twtrace live`: chooses how snapshots are shown, and has a session make them.

use std::io::{self, IsTerminal as _, Stdout};

use anstream::AutoStream;
use rustix::termios;

use crate::model::state_set::StateSet;
use crate::options::{Color, LiveForm, LiveOptions};
use crate::render::json::JsonLines;
use crate::render::live::{PLAIN_WIDTH, PlainTables, Redrawn, Size, Snapshots};

/// Shows what `watch` sees: it hands over one snapshot an interval and one at
/// the end, until the options or an interrupt say stop.
pub fn run(
    options: &LiveOptions,
    watch: impl FnOnce(&LiveOptions, &mut dyn Snapshots) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut sink = sink(options.form, options.scope.states, options.color);
    let watched = watch(options, &mut *sink);
    // An error of the run says more than one of its last bytes.
    let ended = sink.end();
    watched?;
    Ok(ended?)
}

fn sink(form: LiveForm, states: StateSet, color: Color) -> Box<dyn Snapshots> {
    let out = io::stdout();
    let styled = styled(&out, color);
    match form {
        LiveForm::Json => Box::new(JsonLines::new(out)),
        LiveForm::Auto if out.is_terminal() => Box::new(Redrawn::new(out, size, states, styled)),
        LiveForm::Auto | LiveForm::Plain => Box::new(PlainTables::new(out, states, styled)),
    }
}

/// Whether colours are wanted on the standard output, `NO_COLOR` considered.
pub(super) fn styled(out: &Stdout, color: Color) -> bool {
    let choice = match color {
        Color::Auto => AutoStream::choice(out),
        Color::Always | Color::Never => color.into(),
    };
    choice != anstream::ColorChoice::Never
}

/// A terminal that does not know its size is taken for a classic one.
fn size() -> Size {
    match termios::tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => Size {
            columns: size.ws_col.into(),
            rows: size.ws_row.into(),
        },
        _ => Size {
            columns: PLAIN_WIDTH,
            rows: 24,
        },
    }
}
