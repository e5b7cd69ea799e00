# Groups of bars, a bar a store.  Columns: name of the group, then a store each, then each store's text over the bar.
# Given besides: y_name, groups (how many), stores (names), colours, top, mark (a level to show, or 0), mark_name.
load style
set style data histograms
set style histogram clustered gap 1
set boxwidth 0.9
set grid y nox
set ylabel y_name
set yrange [0:top]
set xrange [-0.6:groups - 0.4]
n = words(stores)
if (mark > 0) set label 1 '- - -  ' . mark_name at screen 0.985, screen 1 - 54.0 / height right tc rgb '#222222'
plot for [i = 1:n] data using (column(i + 1)):xtic(1) lc rgb word(colours, i) title word(stores, i), \
     for [i = 1:mark > 0] mark with lines lc rgb '#000000' lw 1.4 dt (6, 4) notitle, \
     for [i = 1:n] data using ($0 + (i - 0.5 - n / 2.0) / (n + 1)):(column(i + 1)):(stringcolumn(i + 1 + n)) \
     with labels boxed center offset 0, 0.75 font ',13' tc rgb '#111111' notitle
