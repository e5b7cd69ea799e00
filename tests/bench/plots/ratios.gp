# Our advantage over LMDB, a bar a workload.  Columns: place, ratio, must, aim, met (1 or 0), name, the
# ratio as text.  Given besides: rows (how many), left, right (the axis' ends), colours (met, missed, aim).
load style
set logscale x 2
set xrange [left:right]
set xtics (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 4, 6, 8, 12, 16, 32, 64, 128)
set yrange [rows + 0.6:0.4] noextend
set ytics scale 0
set grid x noy
set border 1
set arrow 1 from 1, graph 0 to 1, graph 1 nohead lc rgb '#555555' lw 1 front
set xlabel 'LMDB time (bytes) : ours, logarithmic; more is better'
half = 0.33
plot data using ($5 == 1 ? $2 : 1/0):1:(1):2:($1 - half):($1 + half) with boxxyerror lc rgb word(colours, 1) title 'must is met', \
     data using ($5 == 0 ? $2 : 1/0):1:(1):2:($1 - half):($1 + half) with boxxyerror lc rgb word(colours, 2) title 'must is missed', \
     data using 3:($1 - 0.46):(0):(0.92) with vectors nohead lc rgb '#000000' lw 2.6 title 'must', \
     data using 4:($1 - 0.46):(0):(0.92) with vectors nohead lc rgb word(colours, 3) lw 2 dt (3, 2) title 'aim', \
     data using (right):1:7 with labels right font ',15' tc rgb '#111111' notitle, \
     data using (1):1:ytic(6) with points pt 0 notitle
