//! `cargo bench -p tracer-bench`: how long the work takes, for whoever changes it.
//! Nothing is judged by it: `cargo xtask instructions` judges.

use criterion::{BatchSize, Criterion, Throughput};
use tracer_bench::work::{ALL, Work};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for (name, unit, prepare) in ALL {
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(prepare().units));
        group.bench_function(unit, |bencher| {
            bencher.iter_batched(prepare, Work::run, BatchSize::LargeInput);
        });
        group.finish();
    }
    criterion.final_summary();
}
