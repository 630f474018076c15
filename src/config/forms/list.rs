//! Lists: a TOML list, one value alone, or (in a variable or a flag) values with commas between.

use super::{Bad, Form};
use crate::config::node::{Node, Raw};

/// Different values of one form.
pub(in crate::config) struct List<F> {
    pub(in crate::config) form: F,
    pub(in crate::config) min: usize,
    pub(in crate::config) max: usize,
}

impl<F: Form<Out: PartialEq>> Form for List<F> {
    type Out = Vec<F::Out>;

    fn allowed(&self) -> String {
        let least = if self.min == 0 {
            "a list (also empty)"
        } else {
            "one, or a list,"
        };
        format!("{least} of: {}", self.form.allowed())
    }

    fn read(&self, node: &Node, bad: &mut Vec<Bad>) -> Option<Self::Out> {
        let split;
        let nodes: &[Node] = match &node.raw {
            Raw::List(nodes) => nodes,
            Raw::Bare(text) => {
                if text.starts_with('[') && text.ends_with(']') && text.contains([',', '"']) {
                    let hint = "here a list is written without brackets and quotes: a,b,c";
                    bad.push(Bad::new(node, "a list in brackets").hint(hint));
                    return None;
                }
                split = at_commas(text, node.span.start);
                &split
            }
            _ => std::slice::from_ref(node),
        };
        if nodes.len() < self.min {
            bad.push(Bad::new(node, "an empty list"));
            return None;
        }
        if nodes.len() > self.max {
            bad.push(Bad::new(
                node,
                format!("a list of {} values, of {} at most", nodes.len(), self.max),
            ));
            return None;
        }
        let before = bad.len();
        let mut values = Vec::with_capacity(nodes.len());
        for node in nodes {
            match self.form.read(node, bad) {
                Some(value) if values.contains(&value) => {
                    bad.push(Bad::new(
                        node,
                        format!("{} is in the list twice", node.raw.describe()),
                    ));
                }
                Some(value) => values.push(value),
                None => {}
            }
        }
        (bad.len() == before).then_some(values)
    }

    fn show(&self, values: &Self::Out) -> String {
        match values.as_slice() {
            [only] if self.min == 1 => self.form.show(only),
            values => {
                let shown: Vec<String> = values.iter().map(|value| self.form.show(value)).collect();
                format!("[{}]", shown.join(", "))
            }
        }
    }
}

/// The parts of `text` between commas, without the blanks around them; `start` is where `text` stands in its source.
pub(in crate::config) fn at_commas(text: &str, start: usize) -> Vec<Node> {
    let mut nodes = Vec::new();
    let mut from = start;
    for part in text.split(',') {
        let blanks = part.len() - part.trim_start().len();
        let trimmed = part.trim();
        nodes.push(Node {
            raw: Raw::Bare(trimmed.to_owned()),
            span: from + blanks..from + blanks + trimmed.len(),
        });
        from += part.len() + 1;
    }
    nodes
}
