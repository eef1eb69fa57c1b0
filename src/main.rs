//! The `asof` binary; everything is in [`asof::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    asof::cli::main()
}
