# SPDX-License-Identifier: GPL-2.0
#
# Draws what the simulation left in a folder, its argument.

folder = ARG1
set datafile separator "\t"
set datafile missing "nan"
set terminal svg size 960,1240 dynamic background rgb 'white' font 'sans-serif,13'
set multiplot layout 4,1 margins 0.09,0.97,0.04,0.945 spacing 0,0.09
set style data histograms
set style histogram clustered gap 1
set style fill solid 0.8 noborder
set grid ytics
set key at graph 1,1.14 right horizontal
array colour[3] = ['#1b6ca8', '#e0a030', '#a0a0a0']
array who[3] = ['model', 'line', 'line of 30 days']

set yrange [0:105]
set format y '%g%%'
set label 1 'The spare lasted as long as the early bound said (should be 95%)' at graph 0,1.22
set arrow 1 from graph 0, first 95 to graph 1, first 95 nohead dashtype 2 front
plot for [i=1:3] folder.'/held.tsv' using (column(2*i)):xtic(1) title who[i] linecolor rgb colour[i]

set label 1 'It lasted as long as the median said (should be 50%)'
set arrow 1 from graph 0, first 50 to graph 1, first 50 nohead dashtype 2 front
plot for [i=1:3] folder.'/held.tsv' using (column(2*i+1)):xtic(1) title who[i] linecolor rgb colour[i]
unset arrow 1

set label 1 'Days of warning: 5%, 50% and 95% of the disks had less'
set logscale y
set format y '%g'
set yrange [0.04:1500]
set xrange [-0.5:6.5]
plot for [i=1:3] folder.'/warnings.tsv' \
	using ($0+(i-2)*0.2):(column(3*i)):(column(3*i-1)):(column(3*i+1)) \
	with yerrorbars title who[i] linecolor rgb colour[i] linewidth 2 pointtype 7, \
	'' using 0:(0.001):xtic(1) with points notitle

set label 1 'Days until the spare is full, said of a growing disk'
set key at graph 0.02,0.05 left bottom vertical Left reverse
set xlabel 'days in service' offset 0,0.7
set yrange [0.05:40000]
set xrange [*:*]
set style fill transparent solid 0.25 noborder
plot folder.'/disk.tsv' using 1:3:4 with filledcurves title 'model: early to median' linecolor rgb colour[1], \
	'' using 1:4 with lines notitle linecolor rgb colour[1] linewidth 2, \
	'' using 1:6 with lines title who[2] linecolor rgb colour[2] linewidth 2, \
	'' using 1:8 with lines title who[3] linecolor rgb colour[3] linewidth 2, \
	'' using 1:2 with lines title 'the truth' linecolor rgb 'black' linewidth 2
unset multiplot
