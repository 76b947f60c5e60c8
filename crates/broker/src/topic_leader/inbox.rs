//! What has arrived for a topic and was not looked at by its task, which may not run yet.

use std::collections::VecDeque;

use tokio::sync::mpsc;

use super::input::TopicInput;

/// A topic's inputs in the order of their arrival.
#[derive(Debug)]
pub(crate) struct TopicInbox {
    /// What was set aside by [`TopicInbox::drop_given_up`]: it came before everything in `arriving`.
    kept: VecDeque<TopicInput>,
    arriving: mpsc::UnboundedReceiver<TopicInput>,
}

impl TopicInbox {
    /// An empty inbox, and the way into it.
    pub(crate) fn new() -> (mpsc::UnboundedSender<TopicInput>, Self) {
        let (sender, arriving) = mpsc::unbounded_channel();
        let kept = VecDeque::new();
        (sender, Self { kept, arriving })
    }

    /// Waits for inputs and takes up to `count_max` of them. 0: nothing will ever arrive again.
    pub(crate) async fn recv_many(&mut self, inputs: &mut Vec<TopicInput>, count_max: usize) -> usize {
        if self.kept.is_empty() {
            return self.arriving.recv_many(inputs, count_max).await;
        }
        let count = self.kept.len().min(count_max);
        inputs.extend(self.kept.drain(..count));
        count
    }

    /// The next input, if one is there.
    pub(crate) fn try_recv(&mut self) -> Option<TopicInput> {
        self.kept.pop_front().or_else(|| self.arriving.try_recv().ok())
    }

    /// Lets go of everything that nobody waits for any longer, and of the bytes that it holds. Says whether anything is left.
    pub(crate) fn drop_given_up(&mut self) -> bool {
        while let Ok(input) = self.arriving.try_recv() {
            self.kept.push_back(input);
        }
        self.kept.retain(|input| match input {
            TopicInput::Client(input) => !input.is_given_up(),
            TopicInput::Flush { flushed } => !flushed.is_closed(),
            TopicInput::Frame { .. } | TopicInput::Peer { .. } | TopicInput::CutOff { .. } => true,
        });
        !self.kept.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::topic_leader::LeaderInput;

    fn question() -> (TopicInput, oneshot::Receiver<Vec<nsquorum_protocol::ChannelName>>) {
        let (answer, answered) = oneshot::channel();
        (TopicInput::Client(LeaderInput::Channels { answer }), answered)
    }

    #[tokio::test]
    async fn what_still_waits_is_kept_before_what_comes_later() {
        let (sender, mut inbox) = TopicInbox::new();
        let mut waiting = Vec::new();
        for number in 0..6 {
            let (input, answered) = question();
            sender.send(input).expect("open");
            // Every second one gives up.
            match number % 2 {
                0 => waiting.push(answered),
                _ => drop(answered),
            }
            if number == 3 {
                assert!(inbox.drop_given_up());
            }
        }
        let mut inputs = Vec::new();
        assert_eq!(inbox.recv_many(&mut inputs, 1).await, 1);
        inputs.extend(inbox.try_recv());
        assert_eq!(
            inbox.recv_many(&mut inputs, 10).await,
            2,
            "number 4, and 5, which was not looked at"
        );
        for (input, answered) in inputs.into_iter().zip(&mut waiting) {
            let TopicInput::Client(LeaderInput::Channels { answer }) = input else {
                panic!("{input:?}")
            };
            drop(answer);
            assert_eq!(answered.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        }
    }

    #[test]
    fn an_inbox_for_which_nobody_waits_is_empty() {
        let (sender, mut inbox) = TopicInbox::new();
        drop(sender.send(question().0));
        assert!(!inbox.drop_given_up());
        assert!(inbox.try_recv().is_none());
    }
}
