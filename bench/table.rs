//! The table and its file.

use std::path::Path;

use serde_json::{Value, json};

/// One measured thing against its ceiling: a pair for each round.
#[derive(Debug, Clone)]
pub struct Row {
    pub name: String,
    pub unit: &'static str,
    pub rounds: Vec<(f64, f64)>,
    /// The ratio to reach; at most, where `at_most`.
    pub goal: f64,
    pub at_most: bool,
    /// Processor microseconds a request (or row) for each process, of the last round.
    pub cpu: Vec<(String, f64)>,
    pub remark: String,
}

pub fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

pub fn median(values: Vec<f64>) -> f64 {
    let values = sorted(values);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        count if count % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

impl Row {
    pub fn new(name: &str, unit: &'static str, goal: f64) -> Self {
        Self { name: name.to_owned(), unit, rounds: Vec::new(), goal, at_most: false, cpu: Vec::new(), remark: String::new() }
    }

    fn ours(&self) -> f64 {
        median(self.rounds.iter().map(|round| round.0).collect())
    }

    fn ceiling(&self) -> f64 {
        median(self.rounds.iter().map(|round| round.1).collect())
    }

    fn ratios(&self) -> Vec<f64> {
        sorted(self.rounds.iter().map(|(ours, ceiling)| ours / ceiling).collect())
    }

    fn ratio(&self) -> f64 {
        median(self.ratios())
    }

    fn reached(&self) -> bool {
        if self.at_most { self.ratio() <= self.goal } else { self.ratio() >= self.goal }
    }

    fn line(&self) -> String {
        let ratios = self.ratios();
        let show = |ratio: f64| if self.at_most { format!("{ratio:.2}x") } else { format!("{:.0} %", ratio * 100.0) };
        let (least, most) = (ratios.first().copied().unwrap_or(0.0), ratios.last().copied().unwrap_or(0.0));
        let cpu: Vec<_> = self.cpu.iter().map(|(name, micros)| format!("{name} {micros:.0}")).collect();
        format!(
            "| {} | {:.0} {} | {:.0} | {} ({}-{}) | {}{} | {} | {} | {} |",
            self.name,
            self.ours(),
            self.unit,
            self.ceiling(),
            show(self.ratio()),
            show(least),
            show(most),
            if self.at_most { "at most " } else { "" },
            show(self.goal),
            if self.reached() { "yes" } else { "NO" },
            cpu.join(", "),
            self.remark,
        )
    }

    fn json(&self) -> Value {
        json!({
            "row": self.name, "ours": self.ours(), "ceiling": self.ceiling(), "ratio": self.ratio(), "goal": self.goal,
            "reached": self.reached(), "unit": self.unit, "at_most": self.at_most, "rounds": self.rounds,
            "cpu_us": self.cpu.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(), "remark": self.remark,
        })
    }
}

pub const HEAD: &str =
    "| row | ours (median) | ceiling | ratio (min-max) | goal | reached | CPU us each | |\n|---|---|---|---|---|---|---|---|";

/// Prints the table and writes it beside `latest.json`; whether every goal was reached.
pub fn publish(rows: &[Row], machine: &str, file: &Path) -> bool {
    let lines: Vec<_> = rows.iter().map(Row::line).collect();
    let text = format!("{HEAD}\n{}\n\n{machine}\n", lines.join("\n"));
    println!("\n{text}");
    let list: Vec<_> = rows.iter().map(Row::json).collect();
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, serde_json::to_string_pretty(&list).unwrap()).unwrap();
    std::fs::write(file.with_extension("md"), text).unwrap();
    println!("written to {}", file.display());
    rows.iter().all(Row::reached)
}
