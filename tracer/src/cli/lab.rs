//! The arguments of `lab`, and how the words behind `--` become a verb of their
//! own, for which `client` and `server` are namespaces too.

use std::ffi::OsString;

use clap::{Args, CommandFactory as _, FromArgMatches as _, ValueEnum};
use log::LevelFilter;

use super::{Cli, Request, values};
use crate::lab::churn::First;
use crate::lab::scenes::{self, Scene};
use crate::lab::setting::Setting;
use crate::lab::shape::Shape;
use crate::options::Load;

pub(super) const EXAMPLES: &str = "\
Examples:
  twtrace lab                                  watch 100 connections a second
  twtrace lab --rate 400 -- live --json --duration 2m
  twtrace lab --ports 1000 -- live             a client that runs out of ports
  twtrace lab --close server -- live --netns server
  twtrace lab --scene accept-queue             a case that people have
  twtrace lab -- events --state time-wait --count 100

The verb sees the namespace of the client unless its own --netns says otherwise:
client, server, or any other that it takes. What twtrace says of it on the
standard error output is a path for `nsenter --net=PATH ss -tan`.";

const LOAD: &str = "The load";

#[derive(Debug, Args)]
pub(super) struct LabArgs {
    /// Connections that begin in a second, whatever becomes of those before
    #[arg(long, value_name = "N", default_value_t = 100, help_heading = LOAD,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(Shape::MAX_RATE)))]
    rate: u32,

    /// The end that closes first, and so keeps the TIME_WAIT
    #[arg(long, value_name = "END", value_enum, default_value_t = End::Client, help_heading = LOAD)]
    close: End,

    /// How many local ports the client may use [default: 28232, the kernel's]
    ///
    /// Each connection takes one towards its destination until its TIME_WAIT is
    /// over: 1000 of them last for about 16 connections a second.
    #[arg(long, value_name = "N", help_heading = LOAD,
          value_parser = clap::value_parser!(u16).range(1..=i64::from(Shape::MAX_PORTS)))]
    ports: Option<u16>,

    /// Ports of the server that the client connects to in turn
    ///
    /// Each is a destination of its own, towards which every local port can be
    /// used once.
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = LOAD,
          value_parser = clap::value_parser!(u16).range(1..=i64::from(Shape::MAX_DESTINATIONS)))]
    destinations: u16,

    /// Share of connections whose other end never closes, in percent
    ///
    /// As with an application that leaks sockets: it stays in CLOSE_WAIT, and the
    /// end that closed first is an orphan in FIN_WAIT2 until tcp_fin_timeout is
    /// over. After 150 s it is closed nevertheless.
    #[arg(long, value_name = "PERCENT", default_value_t = 2.0, value_parser = values::percent, help_heading = LOAD)]
    close_wait: f64,

    /// Give a sysctl this value at both ends, before the load begins
    ///
    /// Such as tcp_tw_reuse=1, which is short for net.ipv4.tcp_tw_reuse=1. May be
    /// given more than once. Namespaces that are new have the kernel's defaults,
    /// whatever this machine is set to.
    #[arg(long, value_name = "KEY=VALUE", help_heading = LOAD)]
    sysctl: Vec<Setting>,

    /// Play a case that people have, instead of a load; `list` says which there are
    ///
    /// It begins a second after the verb, in one network namespace, which is the
    /// client and the server.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["rate", "close", "ports", "destinations", "close_wait", "sysctl"],
          value_parser = scene)]
    scene: Option<&'static Scene>,

    /// What to run in there, with its options [default: live]
    #[arg(last = true, value_name = "VERB")]
    verb: Vec<OsString>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum End {
    Client,
    Server,
}

impl LabArgs {
    pub(super) fn into_request(self) -> Result<(Request, LevelFilter), clap::Error> {
        let shape = Shape {
            rate: self.rate,
            first: match self.close {
                End::Client => First::Client,
                End::Server => First::Server,
            },
            ports: self.ports,
            destinations: self.destinations,
            left_open: self.close_wait / 100.0,
            settings: self.sysctl,
        };
        let words = std::iter::once("twtrace lab --".into()).chain(self.verb);
        let mut command = within();
        let matches = command.try_get_matches_from_mut(words)?;
        let verb = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
        let (request, log_level) = verb.into_request()?;
        if matches!(request, Request::Lab { .. }) {
            return Err(command.error(
                clap::error::ErrorKind::InvalidSubcommand,
                "a lab does not fit into a lab",
            ));
        }
        let load = match self.scene {
            Some(_) if matches!(request, Request::Trial(_)) => {
                return Err(command.error(
                    clap::error::ErrorKind::ArgumentConflict,
                    "a trial needs a load that goes on, and a scene is none",
                ));
            }
            Some(scene) => Load::Scene(scene),
            None => Load::Shape(shape),
        };
        Ok((
            Request::Lab {
                load,
                verb: Box::new(request),
            },
            log_level,
        ))
    }
}

/// By its name.
fn scene(name: &str) -> Result<&'static Scene, String> {
    scenes::find(name).ok_or_else(|| {
        let all: Vec<String> = scenes::ALL
            .iter()
            .map(|scene| format!("  {:<22} {}", scene.name, scene.about))
            .collect();
        format!("the scenes are\n{}", all.join("\n"))
    })
}

/// The command line of every verb, in a lab: what it watches is the client.
fn within() -> clap::Command {
    const NETNS: &str = "netns";
    const HELP: &str =
        "Network namespaces: client, server, all, self, a name, a path or an inode number";
    let watch_client = |command: clap::Command| {
        if command.get_arguments().any(|arg| arg.get_id() == NETNS) {
            command.mut_arg(NETNS, |arg| arg.default_value("client").help(HELP))
        } else {
            command
        }
    };
    watch_client(Cli::command().bin_name("twtrace lab --")).mut_subcommands(watch_client)
}
