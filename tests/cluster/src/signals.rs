//! Signals for a node's process.

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::cluster::Cluster;

impl Cluster {
    /// The process of a node, from 0.
    ///
    /// # Errors
    /// If it does not run.
    pub fn pid(&self, node: usize) -> Result<i32> {
        self.nodes()?[node].pid.context("the node does not run")
    }

    /// SIGTERM for a node's process, which `up` then starts again.
    ///
    /// # Errors
    /// If it does not run.
    pub fn terminate(&self, node: usize) -> Result<()> {
        send(self.pid(node)?, Signal::TERM)
    }

    /// SIGSTOP: the process does nothing until it is told to go on.
    ///
    /// # Errors
    /// If it does not run.
    pub fn pause(&self, node: usize) -> Result<()> {
        send(self.pid(node)?, Signal::STOP)
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// If it does not run.
    pub fn go_on(&self, node: usize) -> Result<()> {
        send(self.pid(node)?, Signal::CONT)
    }
}

fn send(pid: i32, signal: Signal) -> Result<()> {
    Ok(kill_process(Pid::from_raw(pid).context("an odd pid")?, signal)?)
}
