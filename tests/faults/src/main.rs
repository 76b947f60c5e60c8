//! `nsquorum-faultfs`: the daemon of the fault file system. See the library's text.

use clap::Parser;
use nsquorum_faults::DaemonOptions;

fn main() -> anyhow::Result<()> {
    nsquorum_faults::run(&DaemonOptions::parse())
}
