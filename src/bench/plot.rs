//! Plots of throughput, against file size and against round-trip time.

use super::far_end::SshReach;
use super::link::{Relay, Terms};
use super::queue::Queue;
use super::runner::{Contender, Runner, TransferPlan};
use super::scene::write_noise;
use super::{BenchError, BenchProgress, Trial, find, median};
use plotters::coord::combinators::IntoLogRange;
use plotters::coord::ranged1d::{Ranged, ValueFormatter};
use plotters::prelude::*;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

/// The picture's width and height, in points.
const EXTENT: (u32, u32) = (900, 1000);
/// The long link's bandwidth, bytes per second.
const RATE: u64 = 125_000_000;
const COLOURS: [RGBColor; 4] =
    [RGBColor(200, 60, 40), RGBColor(30, 90, 180), RGBColor(40, 140, 70), RGBColor(120, 120, 120)];

/// Points of one program.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Curve {
    /// Whose.
    pub name: String,
    /// What was varied, and megabytes per second.
    pub points: Vec<(f64, f64)>,
}

/// Curves over one axis.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Chart {
    /// What is shown.
    pub title: String,
    /// What was varied.
    pub axis: String,
    /// In what it was measured.
    pub measure: &'static str,
    /// By powers of ten.
    pub logarithmic: bool,
    pub curves: Vec<Curve>,
}

/// Measures both charts.
///
/// # Errors
/// As [`super::transfer::run`].
pub(crate) fn measure(plan: TransferPlan, progress: &BenchProgress) -> Result<Vec<Chart>, BenchError> {
    let mut runner = Runner::start(plan, progress)?;
    let mut charts = vec![by_size(&mut runner)?];
    if runner.far.port().is_some() {
        charts.push(by_round_trip(&mut runner)?);
    }
    Ok(charts)
}

fn by_size(runner: &mut Runner<'_>) -> Result<Chart, BenchError> {
    let sizes: &[u64] = match runner.plan.quick {
        true => &[64 << 10, 4 << 20],
        false => &[64 << 10, 512 << 10, 4 << 20, 32 << 20, 128 << 20, 512 << 20],
    };
    let reach = runner.far.reach.clone();
    let mut curves = Vec::new();
    for &size in sizes {
        let folder = runner.fresh("src")?;
        let source = folder.join("data");
        write_noise(&source, size, 1)?;
        let to = format!("{}/", runner.far.target(&reach, "dst"));
        let mut contenders = Vec::new();
        if let Some(rsync) = &runner.rsync {
            let mut command = reach.stock(rsync, None);
            command.arg("-t").arg(&source).arg(&to);
            contenders.push(Contender::new("stock rsync", command));
        }
        if let Ok(scp) = find("scp") {
            let mut command = reach.command(&scp);
            command.arg("-q").args(reach.words()).arg(&source).arg(&to);
            contenders.push(Contender::new("scp", command));
        }
        let mut command = reach.ours(None)?;
        command.arg("-t").arg(&source).arg(&to);
        contenders.push(Contender::new("pysmurf-archiver rsync", command));
        let trials = runner.take_turns("plot", runner.plan.rounds, "rm -rf dst && mkdir dst", &contenders, None)?;
        add(&mut curves, &contenders, &trials, (size as f64, size));
    }
    let title = "Throughput of one new file by its size".to_owned();
    Ok(Chart { title, axis: "bytes".to_owned(), measure: "MB/s", logarithmic: true, curves })
}

fn by_round_trip(runner: &mut Runner<'_>) -> Result<Chart, BenchError> {
    let (round_trips, many, len): (&[u64], usize, u64) = match runner.plan.quick {
        true => (&[0, 10], 2, 500_000),
        false => (&[0, 10, 25, 50, 100, 200], 16, 16 << 20),
    };
    let queue = Queue::make(runner, many, len)?;
    let total = many as u64 * len;
    let port = runner.far.port().unwrap_or_default();
    let mut curves = Vec::new();
    for &milliseconds in round_trips {
        let terms = Terms { round_trip: Duration::from_millis(milliseconds), rate: RATE, loss: 0.0, window: 0 };
        let ends = [0, port].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let relay = Relay::start(ends[0], ends[1], terms);
        let relay = relay.map_err(BenchError::local("relay to", Path::new("the private sshd")))?;
        let reach = runner.far.via(&runner.local("home-plot"), relay.address().port())?;
        let fill = || queue.fill();
        let prove = || queue.prove();
        let mut contenders = Vec::new();
        let operands = [format!("{}/", queue.folder.display()), format!("{}/", runner.far.target(&reach, "dst"))];
        if let Some(rsync) = &runner.rsync {
            let mut command = reach.stock(rsync, None);
            command.arg("-rt").args(&operands);
            contenders.push(Contender::new("stock rsync", command));
        }
        let archiver = |reach: &SshReach, sessions: &'static str, name| -> Result<Contender<'_>, BenchError> {
            let command = queue.archiver(reach, None, &runner.far.path("dst"), sessions)?;
            Ok(Contender { prepare: Some(&fill), prove: Some(&prove), ..Contender::new(name, command) })
        };
        contenders.push(archiver(&reach, "1", "the archiver, 1 session")?);
        contenders.push(archiver(&reach, "8", "the archiver, 8 sessions")?);
        let trials = runner.take_turns("plot", 1, "rm -rf dst && mkdir dst", &contenders, None)?;
        add(&mut curves, &contenders, &trials, (milliseconds as f64, total));
    }
    let title = format!("Throughput of {many} new files of {} MB at 1 Gbit/s by round-trip time", len / 1_000_000);
    Ok(Chart { title, axis: "milliseconds".to_owned(), measure: "MB/s", logarithmic: false, curves })
}

fn add(curves: &mut Vec<Curve>, contenders: &[Contender<'_>], trials: &[Vec<Trial>], (at, bytes): (f64, u64)) {
    for (contender, trials) in contenders.iter().zip(trials) {
        let Some(wall) = median(trials.iter().map(|trial| trial.wall)) else { continue };
        let point = (at, bytes as f64 / 1e6 / wall);
        match curves.iter_mut().find(|curve| curve.name == contender.by) {
            Some(curve) => curve.points.push(point),
            None => curves.push(Curve { name: contender.by.to_owned(), points: vec![point] }),
        }
    }
}

/// Writes the charts below each other into a file of SVG.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn write(path: &Path, charts: &[Chart]) -> Result<(), BenchError> {
    let svg = draw(charts).map_err(|error| BenchError::Setup(format!("Cannot draw {}: {error}", path.display())))?;
    fs::write(path, svg).map_err(BenchError::local("write", path))
}

fn draw(charts: &[Chart]) -> Result<String, String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, EXTENT).into_drawing_area();
        root.fill(&WHITE).map_err(|error| error.to_string())?;
        let areas = root.split_evenly((charts.len().max(1), 1));
        for (area, chart) in areas.iter().zip(charts) {
            let points = || chart.curves.iter().flat_map(|curve| &curve.points);
            let most = |value: fn(&(f64, f64)) -> f64| points().map(value).fold(f64::MIN_POSITIVE, f64::max);
            let (right, top) = (most(|point| point.0), most(|point| point.1) * 1.1);
            let left = points().map(|point| point.0).fold(right, f64::min);
            let done = match chart.logarithmic {
                true => draw_chart(area, chart, (left.max(1.0)..right.max(left + 1.0)).log_scale(), top),
                false => draw_chart(area, chart, left..right.max(left + 1.0), top),
            };
            done?;
        }
        root.present().map_err(|error| error.to_string())?;
    }
    Ok(svg)
}

fn draw_chart<X>(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    chart: &Chart,
    x: X,
    top: f64,
) -> Result<(), String>
where
    X: plotters::coord::ranged1d::AsRangedCoord<Value = f64>,
    X::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let wrong = |error: &dyn std::fmt::Display| error.to_string();
    let mut context = ChartBuilder::on(area)
        .caption(&chart.title, ("sans-serif", 20))
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(x, 0.0..top)
        .map_err(|error| wrong(&error))?;
    let label = |value: &f64| match (chart.logarithmic, *value) {
        (true, value) if value >= 1e6 => format!("{} M", value / 1e6),
        (true, value) if value >= 1e3 => format!("{} k", value / 1e3),
        (_, value) => format!("{value}"),
    };
    let mut mesh = context.configure_mesh();
    mesh.x_desc(chart.axis.as_str()).y_desc(chart.measure).x_label_formatter(&label);
    mesh.draw().map_err(|error| wrong(&error))?;
    for (curve, colour) in chart.curves.iter().zip(COLOURS.iter().cycle()) {
        let points = curve.points.iter().copied();
        let line = context.draw_series(LineSeries::new(points, colour.stroke_width(2)).point_size(3));
        line.map_err(|error| wrong(&error))?
            .label(curve.name.as_str())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    let mut legend = context.configure_series_labels();
    legend.background_style(WHITE.mix(0.8)).border_style(BLACK.mix(0.3)).position(SeriesLabelPosition::UpperLeft);
    legend.draw().map_err(|error| wrong(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charts_become_one_picture() {
        let curve = |name: &str, points: &[(f64, f64)]| Curve { name: name.to_owned(), points: points.to_vec() };
        let chart = |title: &str, logarithmic, curves| Chart {
            title: title.to_owned(),
            axis: "axis".to_owned(),
            measure: "MB/s",
            logarithmic,
            curves,
        };
        let charts = [
            chart(
                "By size",
                true,
                vec![curve("stock", &[(65536.0, 1.0), (5e8, 300.0)]), curve("us", &[(65536.0, 2.0)])],
            ),
            chart("By time", false, vec![curve("stock", &[(0.0, 110.0), (200.0, 10.0)])]),
        ];
        let svg = draw(&charts).unwrap();
        for wanted in ["<svg", "By size", "By time", "stock", "us", "MB/s", "</svg>"] {
            assert!(svg.contains(wanted), "{wanted}");
        }
        assert!(draw(&[chart("Nothing", false, Vec::new())]).unwrap().contains("<svg"));
    }
}
