//! The binary: reads the command line and hands over to the library.

use std::process::ExitCode;

use coupon_svc::bootstrap;
use coupon_svc::cli::Cli;
use mimalloc::MiMalloc;

/// Requests and rows are many small allocations, freed by other threads than made them.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    match Cli::from_args(std::env::args_os()) {
        Ok(cli) => bootstrap::run(cli),
        Err(code) => code,
    }
}
