//! Shared prefixes of many sequences, as a tree.

/// A run of tokens that all sequences below it share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    /// The node whose tokens come before.
    pub parent: Option<usize>,
    /// A sequence that holds the tokens.
    pub sequence: usize,
    /// Position of the first token.
    pub start: usize,
    /// Position after the last token; more than `start`.
    pub end: usize,
    /// Nodes that go on from here.
    pub children: Vec<usize>,
    /// Tokens of this node and of all below it.
    pub subtree: usize,
}

/// The prefix tree of a set of sequences. Parents come before their children.
#[derive(Debug, Default)]
pub(crate) struct Trie {
    pub nodes: Vec<Node>,
    pub roots: Vec<usize>,
    /// For each sequence, the node that holds its last token; none for an empty sequence.
    pub leaf: Vec<Option<usize>>,
}

impl Trie {
    pub(crate) fn new(sequences: &[&[u32]]) -> Self {
        let mut order: Vec<usize> = (0..sequences.len()).filter(|&i| !sequences[i].is_empty()).collect();
        order.sort_by(|&a, &b| sequences[a].cmp(sequences[b]).then(a.cmp(&b)));
        let mut trie = Self { leaf: vec![None; sequences.len()], ..Self::default() };
        // Ranges of `order` that share `depth` tokens and have more. A stack and not recursion: chains of prefixes may be long.
        let mut pending = Vec::new();
        push_groups(&mut pending, sequences, &order, (0, order.len()), 0, None);
        while let Some((lo, hi, depth, parent)) = pending.pop() {
            let (first, last) = (sequences[order[lo]], sequences[order[hi - 1]]);
            // In sorted order, what the first and the last share is shared by all between.
            let end = first.iter().zip(last).take_while(|(a, b)| a == b).count();
            let node = trie.nodes.len();
            trie.nodes.push(Node {
                parent,
                sequence: order[lo],
                start: depth,
                end,
                children: Vec::new(),
                subtree: 0,
            });
            match parent {
                Some(parent) => trie.nodes[parent].children.push(node),
                None => trie.roots.push(node),
            }
            // Sequences that end here come first.
            let mut rest = lo;
            while rest < hi && sequences[order[rest]].len() == end {
                trie.leaf[order[rest]] = Some(node);
                rest += 1;
            }
            push_groups(&mut pending, sequences, &order, (rest, hi), end, Some(node));
        }
        for node in (0..trie.nodes.len()).rev() {
            trie.nodes[node].subtree += trie.nodes[node].end - trie.nodes[node].start;
            if let Some(parent) = trie.nodes[node].parent {
                trie.nodes[parent].subtree += trie.nodes[node].subtree;
            }
        }
        trie
    }
}

type Group = (usize, usize, usize, Option<usize>);

/// Splits a sorted range by the token at `depth` and pushes the parts, the first on top.
fn push_groups(
    pending: &mut Vec<Group>,
    sequences: &[&[u32]],
    order: &[usize],
    (lo, hi): (usize, usize),
    depth: usize,
    parent: Option<usize>,
) {
    let from = pending.len();
    let mut begin = lo;
    while begin < hi {
        let token = sequences[order[begin]][depth];
        let end = begin + order[begin..hi].partition_point(|&i| sequences[i][depth] == token);
        pending.push((begin, end, depth, parent));
        begin = end;
    }
    pending[from..].reverse();
}

/// What to do, one step after the other, so that no batch has more than a given number of tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Run these nodes and all below them in one batch.
    Subtrees(Vec<usize>),
    /// Run this node alone and keep its keys and values.
    Enter(usize),
    /// Forget what was kept last.
    Leave,
}

impl Trie {
    /// Plans batches of at most `budget` tokens. A node that is larger alone makes a batch of its own.
    pub(crate) fn plan(&self, budget: usize) -> Vec<Step> {
        enum Work {
            Node(usize),
            Leave,
        }
        let mut steps = Vec::new();
        let mut group: Vec<usize> = Vec::new();
        let mut group_tokens = 0;
        let mut stack: Vec<Work> = self.roots.iter().rev().map(|&n| Work::Node(n)).collect();
        let flush = |steps: &mut Vec<Step>, group: &mut Vec<usize>, tokens: &mut usize| {
            if !group.is_empty() {
                steps.push(Step::Subtrees(std::mem::take(group)));
                *tokens = 0;
            }
        };
        while let Some(work) = stack.pop() {
            match work {
                Work::Leave => {
                    flush(&mut steps, &mut group, &mut group_tokens);
                    steps.push(Step::Leave);
                }
                Work::Node(index) => {
                    let node = &self.nodes[index];
                    if node.subtree <= budget || node.children.is_empty() {
                        if group_tokens + node.subtree > budget {
                            flush(&mut steps, &mut group, &mut group_tokens);
                        }
                        group.push(index);
                        group_tokens += node.subtree;
                    } else {
                        flush(&mut steps, &mut group, &mut group_tokens);
                        steps.push(Step::Enter(index));
                        stack.push(Work::Leave);
                        stack.extend(node.children.iter().rev().map(|&n| Work::Node(n)));
                    }
                }
            }
        }
        flush(&mut steps, &mut group, &mut group_tokens);
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(trie: &Trie, sequences: &[&[u32]], leaf: usize) -> Vec<u32> {
        let mut parts = Vec::new();
        let mut at = Some(leaf);
        while let Some(n) = at {
            let node = &trie.nodes[n];
            parts.push(&sequences[node.sequence][node.start..node.end]);
            at = node.parent;
        }
        parts.into_iter().rev().flatten().copied().collect()
    }

    proptest! {
        #[test]
        fn every_sequence_is_a_path_and_no_prefix_is_held_twice(
            sequences in prop::collection::vec(prop::collection::vec(0u32..3, 0..9), 0..30),
            budget in 1usize..40,
        ) {
            let sequences: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
            let trie = Trie::new(&sequences);
            for (i, s) in sequences.iter().enumerate() {
                match trie.leaf[i] {
                    None => prop_assert!(s.is_empty()),
                    Some(leaf) => prop_assert_eq!(&path(&trie, &sequences, leaf), s),
                }
            }
            let distinct: std::collections::BTreeSet<&[u32]> =
                sequences.iter().flat_map(|s| (1..=s.len()).map(|n| &s[..n])).collect();
            let held: usize = trie.nodes.iter().map(|n| n.end - n.start).sum();
            prop_assert_eq!(held, distinct.len());
            // Each node is run exactly once, after its ancestors or with them, within the budget.
            let mut done = vec![false; trie.nodes.len()];
            let mut kept = Vec::new();
            for step in trie.plan(budget) {
                match step {
                    Step::Enter(n) => {
                        prop_assert_eq!(trie.nodes[n].parent, kept.last().copied());
                        prop_assert!(!std::mem::replace(&mut done[n], true));
                        kept.push(n);
                    }
                    Step::Leave => prop_assert!(kept.pop().is_some()),
                    Step::Subtrees(roots) => {
                        let tokens: usize = roots.iter().map(|&n| trie.nodes[n].subtree).sum();
                        prop_assert!(tokens <= budget || roots.len() == 1);
                        let mut pending = roots.clone();
                        for &n in &roots {
                            prop_assert_eq!(trie.nodes[n].parent, kept.last().copied());
                        }
                        while let Some(n) = pending.pop() {
                            prop_assert!(!std::mem::replace(&mut done[n], true));
                            pending.extend(&trie.nodes[n].children);
                        }
                    }
                }
            }
            prop_assert!(kept.is_empty());
            prop_assert!(done.into_iter().all(|d| d));
        }
    }

    #[test]
    fn four_endings_share_their_question() {
        let sequences: [&[u32]; 4] = [&[1, 2, 3, 10], &[1, 2, 3, 11, 5], &[1, 2, 3, 11, 6], &[9]];
        let trie = Trie::new(&sequences);
        assert_eq!(trie.roots.len(), 2);
        assert_eq!(trie.nodes[0].end, 3);
        assert_eq!(trie.nodes[0].subtree, 7);
        assert_eq!(trie.plan(100), [Step::Subtrees(vec![0, 5])]);
    }
}
