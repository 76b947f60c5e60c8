//! Counting calls and deciding which of them fail.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::io::Errno;

use crate::control::{Action, Call, ErrorCode, Fault, FaultId};

/// More rules than this in one mount is a test that never clears them.
const RULES_MAX: usize = 1024;

#[derive(Debug)]
struct Rule {
    id: FaultId,
    fault: Fault,
    seen: u64,
    fired: u64,
}

/// What the rules say of one call.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Judgement {
    pub(crate) delay: Duration,
    pub(crate) error: Option<Errno>,
    pub(crate) short: bool,
    pub(crate) lie: bool,
    pub(crate) power_off: bool,
}

#[derive(Debug, Default)]
struct Rules {
    rules: Vec<Rule>,
    last: u64,
}

/// The rules and the counters.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    rules: Mutex<Rules>,
    /// A bit per kind of call that some rule names, so that calls of other kinds take no lock.
    armed: AtomicU64,
    counts: [AtomicU64; Call::ALL.len()],
}

impl Faults {
    pub(crate) fn count(&self, call: Call) {
        self.counts[call as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn counts(&self) -> BTreeMap<Call, u64> {
        Call::ALL
            .iter()
            .map(|call| (*call, self.counts[*call as usize].load(Relaxed)))
            .collect()
    }

    pub(crate) fn fired(&self) -> BTreeMap<FaultId, u64> {
        self.rules
            .lock()
            .rules
            .iter()
            .map(|rule| (rule.id, rule.fired))
            .collect()
    }

    /// # Errors
    /// Text for the sender, if there are too many rules.
    pub(crate) fn add(&self, mut fault: Fault) -> Result<FaultId, String> {
        if fault.calls.is_empty() {
            fault.calls = Call::CHANGING.to_vec();
        }
        let mut rules = self.rules.lock();
        if rules.rules.len() >= RULES_MAX {
            return Err(format!("{RULES_MAX} rules are set already; clear them"));
        }
        rules.last += 1;
        let id = FaultId(rules.last);
        let bits = fault.calls.iter().fold(0, |bits, call| bits | 1 << (*call as u64));
        rules.rules.push(Rule {
            id,
            fault,
            seen: 0,
            fired: 0,
        });
        self.armed.fetch_or(bits, Relaxed);
        Ok(id)
    }

    pub(crate) fn clear(&self) {
        let mut rules = self.rules.lock();
        rules.rules.clear();
        self.armed.store(0, Relaxed);
    }

    pub(crate) fn concerns(&self, call: Call) -> bool {
        self.armed.load(Relaxed) & (1 << (call as u64)) != 0
    }

    /// Applies every rule to a call; delays add up, the first error wins.
    pub(crate) fn judge(&self, call: Call, paths: &[String]) -> Judgement {
        let mut judgement = Judgement::default();
        for rule in &mut self.rules.lock().rules {
            let matches = rule.fault.calls.contains(&call)
                && rule
                    .fault
                    .path
                    .as_ref()
                    .is_none_or(|pattern| paths.iter().any(|path| path_matches(pattern, path)));
            if !matches {
                continue;
            }
            rule.seen += 1;
            if rule.seen <= rule.fault.after || rule.fault.times.is_some_and(|times| rule.fired >= times) {
                continue;
            }
            rule.fired += 1;
            match rule.fault.action {
                Action::Error(code) => judgement.error = judgement.error.or(Some(errno(code))),
                Action::DelayMs(delay_ms) => judgement.delay += Duration::from_millis(delay_ms),
                Action::Short => judgement.short = true,
                Action::Lie => judgement.lie = true,
                Action::PowerOff => judgement.power_off = true,
            }
        }
        judgement
    }
}

fn errno(code: ErrorCode) -> Errno {
    match code {
        ErrorCode::Eio => Errno::IO,
        ErrorCode::Enospc => Errno::NOSPC,
        ErrorCode::Erofs => Errno::ROFS,
    }
}

fn path_matches(pattern: &str, path: &str) -> bool {
    let text = if pattern.contains('/') {
        path
    } else {
        path.rsplit('/').next().unwrap_or(path)
    };
    glob(pattern.as_bytes(), text.as_bytes())
}

fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => (0..=text.len()).any(|skipped| glob(rest, &text[skipped..])),
        (Some((b'?', pattern)), Some((_, text))) => glob(pattern, text),
        (Some((wanted, pattern)), Some((found, text))) if wanted == found => glob(pattern, text),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, path) in [
            ("*.log", "db/000012.log"),
            ("MANIFEST-*", "MANIFEST-000004"),
            ("db/*.sst", "db/1.sst"),
            ("?", "a"),
        ] {
            assert!(path_matches(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in [
            ("*.log", "db/000012.sst"),
            ("log", "a.log"),
            ("db/*.sst", "1.sst"),
            ("?", ""),
            ("", "a"),
        ] {
            assert!(!path_matches(pattern, path), "{pattern} {path}");
        }
    }

    #[test]
    fn the_nth_call_and_no_other() {
        let faults = Faults::default();
        faults
            .add(Fault::nth(Call::Write, 3, Action::Error(ErrorCode::Enospc)).on("*.log"))
            .unwrap();
        let errors: Vec<bool> = (0..5)
            .map(|_| {
                assert_eq!(faults.judge(Call::Write, &["a.sst".to_owned()]), Judgement::default());
                faults.judge(Call::Write, &["a.log".to_owned()]).error == Some(Errno::NOSPC)
            })
            .collect();
        assert_eq!(errors, [false, false, true, false, false]);
        assert!(faults.concerns(Call::Write) && !faults.concerns(Call::Read));
        faults.clear();
        assert!(!faults.concerns(Call::Write));
    }
}
