# A line a store over store sizes or writers, both logarithmic.  Columns: x, then a store each.
# Given besides: x_name, y_name, x_tics, y_tics (as "set tics" takes them), stores (names), colours, left, right, bottom, top.
load style
set logscale xy
set xrange [left:right]
set yrange [bottom:top]
set xlabel x_name
set ylabel y_name
eval 'set xtics ' . x_tics
eval 'set ytics ' . y_tics
set pointsize 0.9
plot for [i = 1:words(stores)] data using 1:(column(i + 1)) with linespoints pt 7 lw (i == 1 ? 3 : 2) \
     lc rgb word(colours, i) title word(stores, i)
