//! The form that narrows a list of hosts down: by name, by how they stand, by card. It is
//! hidden until the script of the page shows it, so that without scripts all is visible.

use super::escaped;

/// What can be chosen from.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Word and name of each state.
    pub states: Vec<(String, String)>,
    /// Models of cards.
    pub cards: Vec<String>,
}

impl Filter {
    /// The form.
    #[must_use]
    pub fn form(&self) -> String {
        let options = |choices: &mut dyn Iterator<Item = (String, String)>| {
            let mut text = "<option value=\"\">any</option>".to_owned();
            for (value, name) in choices {
                text.push_str(&format!(
                    "<option value=\"{}\">{}</option>",
                    escaped(&value),
                    escaped(&name)
                ));
            }
            text
        };
        let states = options(&mut self.states.iter().cloned());
        let cards = options(&mut self.cards.iter().map(|card| (card.clone(), card.clone())));
        format!(
            "<form id=\"filter\" class=\"filter\" hidden>\n\
             <label>Host <input type=\"search\" name=\"host\" autocomplete=\"off\" placeholder=\"part of a name\"></label>\n\
             <label>Status <select name=\"state\">{states}</select></label>\n\
             <label>GPU <select name=\"card\">{cards}</select></label>\n\
             <output aria-live=\"polite\"></output>\n</form>\n"
        )
    }

    /// The attributes by which the script finds an element that is about one host.
    #[must_use]
    pub fn attributes(host: &str, state: &str, cards: &[&str]) -> String {
        let cards: String = cards.iter().map(|card| format!("{card}\n")).collect();
        format!(
            "data-host=\"{}\" data-state=\"{}\" data-cards=\"{}\"",
            escaped(host),
            escaped(state),
            escaped(&cards)
        )
    }
}
