# What all plots share: a title and under it the key at the left, then the axes.  Given by the caller with -e: output,
# data (a file), width, height, plot_title.
set terminal svg noenhanced size width, height font 'Helvetica,Arial,sans-serif,15' background '#ffffff' linewidth 1.4
set output output
set datafile separator '\t'
set border 3 lc rgb '#555555'
set tics nomirror out scale 0.6 tc rgb '#222222'
set grid lc rgb '#dddddd' lw 0.6
set tmargin at screen 1 - 84.0 / height
set rmargin 4
set label 100 plot_title at screen 0.015, screen 1 - 24.0 / height left font ',18' tc rgb '#111111'
set key at screen 0.008, screen 1 - 44.0 / height left top horizontal Left reverse samplen 1.6 width -1 tc rgb '#222222'
set style textbox opaque fillcolor '#ffffff' noborder margins 0.4, 0.2
set style fill solid 1.0 noborder
