import sys; sys.path.insert(0,'/work/main/recipes/lorenz96')
import time,torch,sdaxr
from windows import SCENARIOS
torch.set_num_threads(1)
t=SCENARIOS['spantini2019']; tr=t.truth(0); o=t.observe(tr,0)
for m in ('sda',sdaxr.methods.MMPS(iterations=2)):
    s=time.process_time(); p=sdaxr.assimilate(o,'lorenz96',method=m,times=tr.time,members=1,seed=0,progress=False,sampler={"steps":8,"corrections":1,"mixing":False,"attempts":1}); print(m,p.attrs.get('evaluations_per_member'),time.process_time()-s,flush=True)
