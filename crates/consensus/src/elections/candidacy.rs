//! When one replica campaigns: a step machine without a clock.

use std::time::Duration;

use nsquorum_environment::Monotonic;
use nsquorum_topic::Term;

use super::{LEASE, RETRY_MAX, RETRY_MIN, STAGGER};

/// What a replica sees when it looks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sight {
    pub(super) now: Monotonic,
    /// When the leader was last heard; `None`: never, or it is gone.
    pub(super) heard: Option<Monotonic>,
    /// The term of the leader that this replica follows, if that leader's process is known to be gone.
    pub(super) leader_gone: Option<Term>,
    /// This replica's place among those that may campaign, from 0.
    pub(super) rank: u32,
    /// Whether this replica's last campaign has got as far as real votes, which wait for disks.
    pub(super) campaigning: bool,
    /// Random, up to [`STAGGER`].
    pub(super) jitter: Duration,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    /// Nothing before this time, unless something is heard.
    Wait(Monotonic),
    /// The leader is gone: its lease ends here, and the best-ranked replica campaigns at once.
    Release { campaign: bool },
    /// Ask for votes.
    Campaign,
}

/// One replica's patience with its leader.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidacy {
    /// When the best-ranked replica may campaign, unless a leader is heard before.
    due: Monotonic,
    /// The leader of this term is gone, and its lease has been released.
    released: Option<Term>,
    /// Campaigns since the last word of a leader, and when the next one may be.
    attempts: u32,
    next: Monotonic,
    campaigned: Monotonic,
}

/// How long a campaign may wait for real votes, which are on disks before they count.
const VOTES_MAX: Duration = Duration::from_millis(300);

impl Candidacy {
    /// A replica that starts now: it waits for a lease, because a leader may exist.
    pub(super) fn waiting(now: Monotonic) -> Self {
        Self {
            due: now + LEASE,
            released: None,
            attempts: 0,
            next: now,
            campaigned: Monotonic::START,
        }
    }

    /// A replica that is to lead first: nobody can have led before.
    pub(super) fn first(now: Monotonic) -> Self {
        Self {
            due: now,
            ..Self::waiting(now)
        }
    }

    /// This replica leads.
    pub(super) fn lead(&mut self, now: Monotonic) {
        *self = Self::waiting(now);
    }

    pub(super) fn look(&mut self, sight: Sight) -> Move {
        let Sight { now, rank, .. } = sight;
        if let Some(term) = sight.leader_gone
            && self.released != Some(term)
        {
            self.released = Some(term);
            // However long it has been silent: the ranks go by the same moment.
            self.due = now;
            self.attempts = 0;
            self.next = now;
            let campaign = rank == 0;
            if campaign {
                // The others may come to the same evidence a little later, and refuse until then: soon again.
                self.campaigned(now, Duration::ZERO);
            }
            return Move::Release { campaign };
        }
        if let Some(heard) = sight.heard
            && heard + LEASE > self.due
        {
            self.due = heard + LEASE;
            self.attempts = 0;
            self.next = heard;
        }
        let votes_due = self.campaigned + VOTES_MAX;
        let patience = if sight.campaigning { votes_due } else { now };
        let due = (self.due + STAGGER * rank).max(self.next).max(patience);
        if now < due {
            // Looks again soon, because real votes may end without a word.
            let soon = if sight.campaigning { now + RETRY_MIN } else { due };
            return Move::Wait(due.min(soon));
        }
        self.campaigned(now, sight.jitter);
        Move::Campaign
    }

    fn campaigned(&mut self, now: Monotonic, jitter: Duration) {
        let pause = (RETRY_MIN * (1 << self.attempts.min(10))).min(RETRY_MAX);
        self.attempts += 1;
        self.campaigned = now;
        self.next = now + pause + jitter.mul_f64(f64::from(self.attempts.min(8)) / 8.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Monotonic {
        Monotonic::from_nanos(ms * 1_000_000)
    }

    fn sight(now: u64, heard: Option<u64>, rank: u32) -> Sight {
        Sight {
            now: at(now),
            heard: heard.map(at),
            leader_gone: None,
            rank,
            campaigning: false,
            jitter: Duration::ZERO,
        }
    }

    #[test]
    fn a_leader_that_is_heard_is_left_alone() {
        let mut candidacy = Candidacy::waiting(at(0));
        for now in (0..100_000).step_by(100) {
            let heard = Some(now - now % 150);
            assert!(
                matches!(candidacy.look(sight(now, heard, 0)), Move::Wait(_)),
                "at {now} ms"
            );
        }
    }

    #[test]
    fn a_silent_leader_is_replaced_by_rank() {
        let (mut best, mut second) = (Candidacy::waiting(at(0)), Candidacy::waiting(at(0)));
        let heard = Some(5_000);
        assert_eq!(best.look(sight(5_899, heard, 0)), Move::Wait(at(5_900)));
        assert_eq!(best.look(sight(5_900, heard, 0)), Move::Campaign);
        assert_eq!(second.look(sight(5_900, heard, 1)), Move::Wait(at(6_050)));
        assert_eq!(second.look(sight(6_050, heard, 1)), Move::Campaign);
    }

    #[test]
    fn a_leader_that_is_gone_is_replaced_at_once_and_by_rank() {
        let (mut best, mut second) = (Candidacy::waiting(at(0)), Candidacy::waiting(at(0)));
        let gone = |now, rank| Sight {
            leader_gone: Some(Term::new(3)),
            ..sight(now, Some(4_990), rank)
        };
        assert_eq!(best.look(gone(5_000, 0)), Move::Release { campaign: true });
        assert_eq!(second.look(gone(5_000, 1)), Move::Release { campaign: false });
        // The word that it gave before it died is forgotten by then.
        let forgotten = |now, rank| Sight {
            heard: None,
            ..gone(now, rank)
        };
        assert_eq!(best.look(forgotten(5_000, 0)), Move::Wait(at(5_015)));
        assert_eq!(best.look(forgotten(5_015, 0)), Move::Campaign, "nobody leads yet");
        assert_eq!(second.look(forgotten(5_000, 1)), Move::Wait(at(5_150)));
        assert_eq!(second.look(forgotten(5_150, 1)), Move::Campaign);
    }

    #[test]
    fn real_votes_get_time() {
        let mut candidacy = Candidacy::first(at(10_000));
        assert_eq!(candidacy.look(sight(10_000, None, 0)), Move::Campaign);
        let voting = |now| Sight {
            campaigning: true,
            ..sight(now, None, 0)
        };
        assert!(matches!(candidacy.look(voting(10_200)), Move::Wait(_)));
        assert_eq!(candidacy.look(voting(10_300)), Move::Campaign);
    }

    #[test]
    fn campaigns_without_success_go_on_but_ever_more_slowly() {
        let mut candidacy = Candidacy::first(at(10_000));
        let mut campaigns = Vec::new();
        for now in 10_000..14_000 {
            if candidacy.look(sight(now, None, 0)) == Move::Campaign {
                campaigns.push(now);
            }
        }
        assert_eq!(campaigns[0], 10_000);
        assert!(campaigns[1] - campaigns[0] <= 15);
        let pauses: Vec<u64> = campaigns.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(pauses.is_sorted(), "{pauses:?}");
        assert_eq!(pauses.last(), Some(&300));
    }
}
