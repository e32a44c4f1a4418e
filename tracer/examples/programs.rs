//! The eBPF programs loaded on this machine and what they cost, for `cargo xtask
//! bench`: a line of JSON for each line read.
//!
//! Run times are counted while a process holds a descriptor that asks for them,
//! as `--run-times` does; the sysctl of that name is left alone. It knows
//! nothing of the tracer but the layout of the map that counts its losses.

use std::io::{BufRead, Write};

use anyhow::{Context, Result};
use aya::maps::{MapData, MapInfo, PerCpuArray, loaded_maps};
use aya::programs::{ProgramInfo, loaded_programs};
use aya::sys::{Stats, enable_stats};
use clap::Parser;
use serde_json::{Value, json};
use tracer_common::{seat, wire::Losses};

#[derive(Parser)]
#[command(about = "Lists the loaded eBPF programs, a line of JSON for each line read")]
struct Cli {
    /// Have the kernel count run times as long as this runs; that costs some 45 ns a run.
    #[arg(long)]
    run_times: bool,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let _counting = cli
        .run_times
        .then(|| enable_stats(Stats::RunTime))
        .transpose()
        .context("cannot have run times counted; this needs Linux 5.8 and CAP_SYS_ADMIN")?;
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        line?;
        // What is unloaded while we look is not there.
        let programs: Vec<Value> = loaded_programs().flatten().map(|p| program(&p)).collect();
        let losses: Vec<Value> = loaded_maps()
            .flatten()
            .filter(|map| map.name() == seat::LOSSES.as_bytes())
            .filter_map(|map| losses(&map).ok())
            .collect();
        writeln!(out, "{}", json!({"programs": programs, "losses": losses}))?;
        out.flush()?;
    }
    Ok(())
}

fn program(info: &ProgramInfo) -> Value {
    json!({
        "id": info.id(),
        "name": info.name_as_str().unwrap_or_default(),
        "runs": info.run_count(),
        "run_time_ns": info.run_time().as_nanos() as u64,
    })
}

fn losses(map: &MapInfo) -> Result<Value> {
    let map_data = MapData::from_id(map.id())?;
    let array = PerCpuArray::<_, Losses>::try_from(aya::maps::Map::PerCpuArray(map_data))?;
    let cpus = array.get(&0, 0)?;
    let sum = |pick: fn(&Losses) -> u64| cpus.iter().map(pick).sum::<u64>();
    Ok(json!({
        "id": map.id(),
        "ring": sum(|losses| losses.ring),
    }))
}
