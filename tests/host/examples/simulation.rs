// SPDX-License-Identifier: GPL-2.0

//! Measures the health model on simulated disks: `simulation SEED DISKS FOLDER`.
//!
//! Prints the tables of `docs/health.md`, for so many disks of each kind, and leaves in the folder
//! what its picture is drawn from.

use std::env;
use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::thread;

use dm_remap_host::remap::health::Days;
use dm_remap_host::remap::health::Exhaustion;
use dm_remap_host::simulation::disks::Disk;
use dm_remap_host::simulation::disks::Kind;
use dm_remap_host::simulation::disks::DAY;
use dm_remap_host::simulation::measure::follow;
use dm_remap_host::simulation::measure::measure;
use dm_remap_host::simulation::measure::Score;
use dm_remap_host::simulation::measure::COUNT;
use dm_remap_host::simulation::measure::NAMES;

/// The scores of all who forecast, for a kind of disks.
type Row = (Kind, [Score; COUNT]);

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().collect();
    let [_, seed, disks, folder] = arguments.as_slice() else {
        return Err("usage: simulation SEED DISKS FOLDER".into());
    };
    let (seed, disks, folder) = (seed.parse()?, disks.parse()?, Path::new(folder));
    let rows = thread::scope(|scope| {
        let threads = Kind::ALL.map(|kind| scope.spawn(move || (kind, measure(kind, seed, disks))));
        threads.map(|thread| thread.join().expect("a thread ends"))
    });
    let failing: Vec<&Row> = rows.iter().filter(|(kind, _)| kind.fails()).collect();
    print!("{}", calibration(&failing)?);
    print!("{}", warnings(&failing)?);
    print!("{}", alarms(&rows)?);
    fs::write(folder.join("held.tsv"), held(&failing)?)?;
    fs::write(folder.join("warnings.tsv"), spans(&failing)?)?;
    fs::write(
        folder.join("disk.tsv"),
        life(&Disk::new(Kind::Growing, seed, 0))?,
    )?;
    Ok(())
}

/// The parts of the forecasts that came true, and how far their medians were from the truth.
fn calibration(rows: &[&Row]) -> Result<String, std::fmt::Error> {
    let mut table = String::from(
        "\n| kind | early bound held: model | line | line of 30 days \
         | median held: model | line | line of 30 days \
         | factor from the truth: model | line | line of 30 days |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    let mut write_row = |name: &str, rows: &[&Row]| {
        let mean = |who: usize, value: fn(&Score) -> f64| {
            let values = rows
                .iter()
                .map(|(_, scores)| value(&scores[who]) / scores[who].failed);
            values.sum::<f64>() / rows.len() as f64
        };
        write!(table, "| {name} |")?;
        for who in 0..COUNT {
            write!(table, " {:.0}% |", 100.0 * mean(who, |score| score.early))?;
        }
        for who in 0..COUNT {
            write!(table, " {:.0}% |", 100.0 * mean(who, |score| score.median))?;
        }
        for who in 0..COUNT {
            write!(table, " {:.1} |", mean(who, |score| score.distance).exp())?;
        }
        writeln!(table)
    };
    for row in rows {
        write_row(row.0.name(), &[row])?;
    }
    let gradual: Vec<&Row> = rows
        .iter()
        .filter(|row| row.0 != Kind::Sudden)
        .copied()
        .collect();
    write_row("*all but sudden*", &gradual)?;
    Ok(table)
}

/// How many days of warning there were.
fn warnings(rows: &[&Row]) -> Result<String, std::fmt::Error> {
    let mut table = String::from(
        "\n| kind | forecast | days of warning: half of the disks | all but 5% \
         | warned 14 days before | 1 day before |\n| --- | --- | --- | --- | --- | --- |\n",
    );
    for (kind, scores) in rows {
        for (name, score) in NAMES.iter().zip(scores) {
            writeln!(
                table,
                "| {} | {name} | {:.1} | {:.1} | {:.0}% | {:.0}% |",
                kind.name(),
                score.warning(0.5),
                score.warning(0.05),
                100.0 * score.warned(14.0),
                100.0 * score.warned(1.0),
            )?;
        }
    }
    Ok(table)
}

/// How often the level changed, and said too early that a disk be replaced.
fn alarms(rows: &[Row]) -> Result<String, std::fmt::Error> {
    let mut table = String::from(
        "\n| kind | false alarms in a year: model | line | line of 30 days \
         | changes of the level in a year: model | line | line of 30 days |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for (kind, scores) in rows {
        write!(table, "| {} |", kind.name())?;
        for score in scores {
            write!(table, " {:.3} |", score.false_alarms / score.quiet_years)?;
        }
        for score in scores {
            write!(table, " {:.1} |", score.changes / score.years)?;
        }
        writeln!(table)?;
    }
    Ok(table)
}

/// For the picture: what part of the early bounds and of the medians held.
fn held(rows: &[&Row]) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    for (kind, scores) in rows {
        write!(text, "{}", kind.name())?;
        for score in scores {
            let (early, median) = (score.early / score.failed, score.median / score.failed);
            write!(text, "\t{:.1}\t{:.1}", 100.0 * early, 100.0 * median)?;
        }
        writeln!(text)?;
    }
    Ok(text)
}

/// For the picture: the days of warning that 95%, 50% and 5% of the disks had.
fn spans(rows: &[&Row]) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    for (kind, scores) in rows {
        write!(text, "{}", kind.name())?;
        for score in scores {
            for part in [0.05, 0.5, 0.95] {
                write!(text, "\t{:.2}", score.warning(part).max(0.05))?;
            }
        }
        writeln!(text)?;
    }
    Ok(text)
}

/// For the picture: what was said of one disk, and the truth, in days.
fn life(disk: &Disk) -> Result<String, std::fmt::Error> {
    let (mut text, mut result) = (String::new(), Ok(()));
    let days = |said: Option<Days>| {
        said.map_or("nan".to_owned(), |days| (days.0 as f64 + 0.5).to_string())
    };
    follow(disk, |time, _, said: [Exhaustion; COUNT]| {
        if time % DAY as u64 == 0 && result.is_ok() {
            let left = (disk.end - time) as f64 / DAY;
            result = write!(text, "{}\t{left:.2}", time / DAY as u64)
                .and_then(|()| {
                    said.iter().try_for_each(|said| {
                        write!(text, "\t{}\t{}", days(said.early), days(said.median))
                    })
                })
                .and_then(|()| writeln!(text));
        }
    });
    result.map(|()| text)
}
